"""The panels of the dashboard: their queries and how they are shown."""

from scripts.dashboard_generation_panels import GENERATION
from scripts.dashboard_model_panels import MODELS
from scripts.dashboard_parts import Panel, Query, Section, quantiles, rate

_UNARY_OK = 'code="OK", method=~".*/(Infer|ModelInfer|infer)"'
#: Labels of ratios: each version has its own queue and instances, and an idle one must not hide another.
_VERSION = "model, version"
_VERSION_LEGEND = "{{model}} {{version}}"
_INSTANCES = "inferd_model_instances{$M}"
_FAILURES = 'code=~"INTERNAL|UNKNOWN|DATA_LOSS|UNAVAILABLE|DEADLINE_EXCEEDED"'


def _heatmap(metric: str, labels: str = "") -> tuple[Query, ...]:
    narrowed = f"$M{', ' + labels if labels else ''}"
    return (Query(expr=f"sum by (le) (increase({metric}_bucket{{{narrowed}}}[$__rate_interval]))", legend="{{le}}"),)


def _sum(by: str, metric: str, labels: str = "") -> str:
    return f"sum by ({by}) ({rate(metric, labels)})"


OVERVIEW = Section(
    title="Overview",
    panels=(
        Panel(
            title="Ready models",
            description="Versions over all instances.",
            kind="stat",
            queries=(Query(expr='sum by (model) (inferd_model_state{$M, state="ready"})', legend="{{model}}"),),
        ),
        Panel(
            title="Rows offered and served",
            description="Offered rows include rejected ones: the difference is the excess load. No language models.",
            unit="rowsps",
            queries=(
                Query(expr=f"sum({rate('inferd_offered_rows_total')})", legend="offered"),
                Query(
                    expr=f"sum({rate('inferd_batch_rows_sum')}"
                    " unless on (instance, model, version) inferd_sequences_limit)",
                    legend="served",
                ),
            ),
        ),
        Panel(
            title="Requests rejected",
            description="By the queue, by reason.",
            unit="reqps",
            queries=(Query(expr=_sum("reason", "inferd_rejected_total"), legend="{{reason}}"),),
        ),
        Panel(
            title="Calls by status",
            description="Finished RPCs; a stream counts once.",
            unit="reqps",
            queries=(Query(expr=_sum("code", "inferd_requests_total"), legend="{{code}}"),),
        ),
        Panel(
            title="Latency of answers",
            description="Unary calls with OK, measured in the server.",
            unit="s",
            queries=quantiles("inferd_request_duration_seconds", _UNARY_OK),
        ),
        Panel(
            title="Error ratio",
            description="Calls that failed in the server or too late, of all calls.",
            unit="percentunit",
            queries=(
                Query(
                    expr=f"({_sum(_VERSION, 'inferd_requests_total', _FAILURES)}"
                    f" or 0 * {_sum(_VERSION, 'inferd_requests_total')})"
                    f" / {_sum(_VERSION, 'inferd_requests_total')}",
                    legend=_VERSION_LEGEND,
                ),
            ),
        ),
        Panel(
            title="Latency of answers, distribution",
            description="Unary calls with OK. Exemplars are dots that link to traces.",
            unit="s",
            kind="heatmap",
            width=24,
            queries=_heatmap("inferd_request_duration_seconds", _UNARY_OK),
        ),
    ),
)

QUEUE = Section(
    title="Queue",
    panels=(
        Panel(
            title="Queued rows",
            description="At the scrape.",
            width=6,
            queries=(Query(expr=f"sum by ({_VERSION}) (inferd_queue_rows{{$M}})", legend=_VERSION_LEGEND),),
        ),
        Panel(
            title="Queue in use",
            description="Fraction of the present limit, which follows from the drain rate; maximum over instances.",
            unit="percentunit",
            width=6,
            queries=(
                Query(
                    expr=f"max by ({_VERSION}) (inferd_queue_rows{{$M}} / inferd_queue_limit_rows{{$M}})",
                    legend=_VERSION_LEGEND,
                ),
            ),
        ),
        Panel(
            title="Time in the queue",
            description="From admission to the start of the batch.",
            unit="s",
            width=6,
            queries=quantiles("inferd_queue_duration_seconds"),
        ),
        Panel(
            title="Queued bytes",
            description="Inputs of the requests in the queue.",
            unit="bytes",
            width=6,
            queries=(Query(expr=f"sum by ({_VERSION}) (inferd_queue_bytes{{$M}})", legend=_VERSION_LEGEND),),
        ),
        Panel(
            title="Time in the queue, distribution",
            description="Two bands: some requests wait for a whole run, others arrive just before the next batch.",
            unit="s",
            kind="heatmap",
            width=24,
            queries=_heatmap("inferd_queue_duration_seconds"),
        ),
    ),
)

BATCHING = Section(
    title="Batching",
    panels=(
        Panel(
            title="Rows per batch",
            description="Mean, which should grow with the load.",
            queries=(
                Query(
                    expr=f"{_sum(_VERSION, 'inferd_batch_rows_sum')} / {_sum(_VERSION, 'inferd_batch_rows_count')}",
                    legend=_VERSION_LEGEND,
                ),
            ),
        ),
        Panel(
            title="Rows per batch, distribution",
            description="Number of batches by size.",
            kind="heatmap",
            width=16,
            queries=_heatmap("inferd_batch_rows"),
        ),
        Panel(
            title="Stages, mean",
            description="Time of a request by stage. Stack, run and encode are those of its whole batch.",
            unit="s",
            width=6,
            queries=(
                Query(
                    expr=f"{_sum('stage', 'inferd_stage_duration_seconds_sum')}"
                    f" / {_sum('stage', 'inferd_stage_duration_seconds_count')}",
                    legend="{{stage}}",
                ),
            ),
        ),
        Panel(
            title="Stages, p99",
            description="Of each stage separately: they do not add up.",
            unit="s",
            width=6,
            queries=(
                Query(
                    expr=f"histogram_quantile(0.99, {_sum('le, stage', 'inferd_stage_duration_seconds_bucket')})",
                    legend="{{stage}}",
                ),
            ),
        ),
        Panel(
            title="Batches",
            description="Runs of the model, failed runs, and requests that ran outside the queue.",
            unit="ops",
            width=6,
            queries=(
                Query(expr=f"sum({rate('inferd_batch_rows_count')})", legend="runs"),
                Query(expr=f"sum({rate('inferd_batch_failures_total')})", legend="failed"),
                Query(expr=f"sum({rate('inferd_caller_runs_total')})", legend="caller runs"),
            ),
        ),
        Panel(
            title="Batch checks",
            description="Batches of which one request ran again alone, and mismatches of the answers.",
            unit="ops",
            width=6,
            queries=(
                Query(expr=f"sum({rate('inferd_batch_checks_total')})", legend="checks"),
                Query(expr=_sum(_VERSION, "inferd_batch_mismatches_total"), legend=f"mismatches, {_VERSION_LEGEND}"),
            ),
        ),
    ),
)

RUNTIME = Section(
    title="Runtime",
    panels=(
        Panel(
            title="Instances busy",
            description="Fraction of time in which they run the model. For short runs, see the CPU.",
            unit="percentunit",
            queries=(
                Query(
                    expr=f"sum by ({_VERSION}) ({rate('inferd_inference_duration_seconds_sum')} and {_INSTANCES})"
                    f" / sum by ({_VERSION}) ({_INSTANCES})",
                    legend=_VERSION_LEGEND,
                ),
            ),
        ),
        Panel(
            title="Runs of the model",
            description="One per batch.",
            unit="s",
            queries=quantiles("inferd_inference_duration_seconds"),
        ),
        Panel(
            title="CPU",
            description="Cores in use.",
            queries=(Query(expr="rate(process_cpu_seconds_total{$S}[$__rate_interval])", legend="{{instance}}"),),
        ),
        Panel(
            title="Predicted runs",
            description="Predicted run time by rows, and its 95th percentile; maximum over instances.",
            unit="s",
            width=12,
            queries=(
                Query(
                    expr=f"max by ({_VERSION}, rows) (inferd_predicted_run_seconds{{$M}})",
                    legend=f"{_VERSION_LEGEND}, rows {{{{rows}}}}",
                ),
                Query(
                    expr=f"max by ({_VERSION}, rows) (inferd_predicted_run_p95_seconds{{$M}})",
                    legend=f"{_VERSION_LEGEND}, rows {{{{rows}}}}, p95",
                ),
            ),
        ),
        Panel(
            title="Error of the predictions",
            description="Typical error of the predicted run time; maximum over instances.",
            unit="percentunit",
            width=12,
            queries=(
                Query(expr=f"max by ({_VERSION}) (inferd_run_prediction_error_ratio{{$M}})", legend=_VERSION_LEGEND),
            ),
        ),
        Panel(
            title="Memory",
            description="Of the process, and its growth while each model was loaded.",
            unit="bytes",
            queries=(
                Query(expr="process_resident_memory_bytes{$S}", legend="{{instance}}"),
                Query(expr="sum by (instance, model) (inferd_model_memory_bytes{$M})", legend="{{instance}} {{model}}"),
            ),
        ),
        Panel(
            title="GPU",
            description="Fraction of time busy; empty without a GPU.",
            unit="percentunit",
            queries=(Query(expr="inferd_gpu_utilization_ratio{$S}", legend="{{instance}} {{gpu}}"),),
        ),
        Panel(
            title="GPU memory",
            description="Used by all processes, and in total; empty without a GPU.",
            unit="bytes",
            queries=(
                Query(expr="inferd_gpu_memory_used_bytes{$S}", legend="{{instance}} {{gpu}}"),
                Query(expr="inferd_gpu_memory_total_bytes{$S}", legend="{{instance}} {{gpu}}, all"),
            ),
        ),
    ),
)

POLL_THREAD = Section(
    title="Poll thread",
    panels=(
        Panel(
            title="Lag",
            description="Lag of the thread that serves all calls.",
            unit="s",
            queries=(Query(expr="inferd_poll_lag_seconds{$S}", legend="{{instance}}"),),
        ),
        Panel(
            title="Open calls",
            description="Including streams.",
            queries=(Query(expr="inferd_inflight_requests{$S}", legend="{{instance}}"),),
        ),
        Panel(
            title="Dropped",
            description="Log lines and spans whose reader does not keep up.",
            unit="ops",
            queries=(
                Query(expr="sum(rate(inferd_access_log_dropped_total{$S}[$__rate_interval]))", legend="log lines"),
                Query(expr="sum(rate(inferd_spans_dropped_total{$S}[$__rate_interval]))", legend="spans"),
            ),
        ),
    ),
)

SECURITY = Section(
    title="Security",
    panels=(
        Panel(
            title="Calls denied",
            description="Without a valid credential, or without permission.",
            unit="reqps",
            width=6,
            queries=(
                Query(
                    expr="sum by (code) (rate(inferd_requests_total{$S, "
                    'code=~"UNAUTHENTICATED|PERMISSION_DENIED"}[$__rate_interval]))',
                    legend="{{code}}",
                ),
            ),
        ),
        Panel(
            title="Over the quota",
            description="Requests rejected by quota.",
            unit="reqps",
            width=6,
            queries=(
                Query(
                    expr="sum by (reason) (rate(inferd_quota_rejected_total{$S}[$__rate_interval]))",
                    legend="{{reason}}",
                ),
            ),
        ),
        Panel(
            title="Certificates",
            description="Time until expiry, the earliest of each kind.",
            unit="s",
            width=6,
            queries=(
                Query(
                    expr="min by (file) (inferd_certificate_expiry_timestamp_seconds{$S}) - time()", legend="{{file}}"
                ),
            ),
        ),
        Panel(
            title="Failed file reloads",
            description="Invalid tokens, keys, policies and certificates.",
            width=6,
            queries=(
                Query(
                    expr="sum by (file) (increase(inferd_file_reload_failures_total{$S}[$__rate_interval]))",
                    legend="{{file}}",
                ),
            ),
        ),
    ),
)

SECTIONS = (OVERVIEW, QUEUE, BATCHING, GENERATION, RUNTIME, MODELS, POLL_THREAD, SECURITY)

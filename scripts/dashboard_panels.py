"""The panels of the dashboard: what is asked of Prometheus and how it is shown.

``$S`` stands for what every query is narrowed to, ``$M`` for that and the models. ``$__rate_interval`` is Grafana's.
"""

from dataclasses import dataclass

_UNARY_OK = 'code="OK", method=~".*/(Infer|ModelInfer)"'
#: Ratios are by these: each version has its own queue and instances, and one that is idle must not hide another.
_VERSION = "model, version"
_VERSION_LEGEND = "{{model}} {{version}}"
_INSTANCES = "inferd_model_instances{$M}"
_FAILURES = 'code=~"INTERNAL|UNKNOWN|DATA_LOSS|UNAVAILABLE|DEADLINE_EXCEEDED"'


@dataclass(frozen=True, kw_only=True)
class Query:
    """One expression; ``legend`` may name labels as ``{{label}}``."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel. ``unit`` is Grafana's name; ``kind`` is timeseries, heatmap or stat; ``width`` of 24 columns."""

    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8


@dataclass(frozen=True, kw_only=True)
class Section:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


def _rate(metric: str, labels: str = "") -> str:
    return f"rate({metric}{{$M{', ' + labels if labels else ''}}}[$__rate_interval])"


def _quantiles(metric: str, labels: str = "") -> tuple[Query, ...]:
    rates = f"sum by (le) ({_rate(f'{metric}_bucket', labels)})"
    shares = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
    return tuple(Query(expr=f"histogram_quantile({share}, {rates})", legend=name) for name, share in shares)


def _heatmap(metric: str, labels: str = "") -> tuple[Query, ...]:
    narrowed = f"$M{', ' + labels if labels else ''}"
    return (Query(expr=f"sum by (le) (increase({metric}_bucket{{{narrowed}}}[$__rate_interval]))", legend="{{le}}"),)


def _sum(by: str, metric: str, labels: str = "") -> str:
    return f"sum by ({by}) ({_rate(metric, labels)})"


OVERVIEW = Section(
    title="Overview",
    panels=(
        Panel(
            title="Models that are ready",
            description="Versions of models over all instances.",
            kind="stat",
            queries=(Query(expr='sum by (model) (inferd_model_state{$M, state="ready"})', legend="{{model}}"),),
        ),
        Panel(
            title="Rows offered and served",
            description="Offered rows count those that were refused as well: between the lines is what was too much.",
            unit="rowsps",
            queries=(
                Query(expr=f"sum({_rate('inferd_offered_rows_total')})", legend="offered"),
                Query(expr=f"sum({_rate('inferd_batch_rows_sum')})", legend="served"),
            ),
        ),
        Panel(
            title="Requests rejected",
            description="By the queue, and why.",
            unit="reqps",
            queries=(Query(expr=_sum("reason", "inferd_rejected_total"), legend="{{reason}}"),),
        ),
        Panel(
            title="Calls by status",
            description="RPCs that ended; a stream is one.",
            unit="reqps",
            queries=(Query(expr=_sum("code", "inferd_requests_total"), legend="{{code}}"),),
        ),
        Panel(
            title="Latency of answers",
            description="Unary calls that were answered, in the server.",
            unit="s",
            queries=_quantiles("inferd_request_duration_seconds", _UNARY_OK),
        ),
        Panel(
            title="Error ratio",
            description="What failed on the server's side or too late, of all calls.",
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
            title="Latency of answers, all of them",
            description="Unary calls that were answered. With exemplars, each dot leads to a trace.",
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
            title="Rows that wait",
            description="At the moment of the scrape.",
            width=6,
            queries=(Query(expr=f"sum by ({_VERSION}) (inferd_queue_rows{{$M}})", legend=_VERSION_LEGEND),),
        ),
        Panel(
            title="Queue in use",
            description="Of the rows that may wait, judged by how fast the queue drains; of all instances the fullest.",
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
            queries=_quantiles("inferd_queue_duration_seconds"),
        ),
        Panel(
            title="Bytes that wait",
            description="Inputs of the requests in the queue.",
            unit="bytes",
            width=6,
            queries=(Query(expr=f"sum by ({_VERSION}) (inferd_queue_bytes{{$M}})", legend=_VERSION_LEGEND),),
        ),
        Panel(
            title="Time in the queue, all requests",
            description="Two bands show that some wait for a batch that others just catch.",
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
            description="The mean: it should grow with the load.",
            queries=(
                Query(
                    expr=f"{_sum(_VERSION, 'inferd_batch_rows_sum')} / {_sum(_VERSION, 'inferd_batch_rows_count')}",
                    legend=_VERSION_LEGEND,
                ),
            ),
        ),
        Panel(
            title="Rows per batch, all batches",
            description="How many batches were of which size.",
            kind="heatmap",
            width=16,
            queries=_heatmap("inferd_batch_rows"),
        ),
        Panel(
            title="Stages, mean",
            description="Where the time of a request goes. Stack, run and encode are those of its whole batch.",
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
            description="Of each stage by itself: they do not add up.",
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
            description="Runs of the model, those that failed, and requests that ran outside the queue.",
            unit="ops",
            width=6,
            queries=(
                Query(expr=f"sum({_rate('inferd_batch_rows_count')})", legend="runs"),
                Query(expr=f"sum({_rate('inferd_batch_failures_total')})", legend="failed"),
                Query(expr=f"sum({_rate('inferd_caller_runs_total')})", legend="caller runs"),
            ),
        ),
        Panel(
            title="Batch checks",
            description="Batches of which a request ran again alone, and those of which its answer differed.",
            unit="ops",
            width=6,
            queries=(
                Query(expr=f"sum({_rate('inferd_batch_checks_total')})", legend="checks"),
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
            description="The part of the time in which they run the model. Of short runs the CPU says more.",
            unit="percentunit",
            queries=(
                Query(
                    expr=f"sum by ({_VERSION}) ({_rate('inferd_inference_duration_seconds_sum')} and {_INSTANCES})"
                    f" / sum by ({_VERSION}) ({_INSTANCES})",
                    legend=_VERSION_LEGEND,
                ),
            ),
        ),
        Panel(
            title="Runs of the model",
            description="One per batch.",
            unit="s",
            queries=_quantiles("inferd_inference_duration_seconds"),
        ),
        Panel(
            title="CPU",
            description="Cores in use.",
            queries=(Query(expr="rate(process_cpu_seconds_total{$S}[$__rate_interval])", legend="{{instance}}"),),
        ),
        Panel(
            title="Predicted runs",
            description="What a run takes by its rows, and what 95 % of such runs do not exceed; the slowest instance.",
            unit="s",
            width=12,
            queries=(
                Query(
                    expr=f"max by ({_VERSION}, rows) (inferd_predicted_run_seconds{{$M}})",
                    legend=f"{_VERSION_LEGEND}, {{{{rows}}}} rows",
                ),
                Query(
                    expr=f"max by ({_VERSION}, rows) (inferd_predicted_run_p95_seconds{{$M}})",
                    legend=f"{_VERSION_LEGEND}, {{{{rows}}}} rows, p95",
                ),
            ),
        ),
        Panel(
            title="Error of the predictions",
            description="How far runs are from their prediction, typically; the most of all instances.",
            unit="percentunit",
            width=12,
            queries=(
                Query(expr=f"max by ({_VERSION}) (inferd_run_prediction_error_ratio{{$M}})", legend=_VERSION_LEGEND),
            ),
        ),
        Panel(
            title="Memory",
            description="Of the process, and by how much it grew as each model was loaded.",
            unit="bytes",
            queries=(
                Query(expr="process_resident_memory_bytes{$S}", legend="{{instance}}"),
                Query(expr="sum by (instance, model) (inferd_model_memory_bytes{$M})", legend="{{instance}} {{model}}"),
            ),
        ),
        Panel(
            title="GPU",
            description="Part of the time it did something; nothing without one.",
            unit="percentunit",
            queries=(Query(expr="inferd_gpu_utilization_ratio{$S}", legend="{{instance}} {{gpu}}"),),
        ),
        Panel(
            title="GPU memory",
            description="In use, by whomever, and how much there is; nothing without a GPU.",
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
            description="How late the thread is that serves all calls.",
            unit="s",
            queries=(Query(expr="inferd_poll_lag_seconds{$S}", legend="{{instance}}"),),
        ),
        Panel(
            title="Open calls",
            description="Streams included.",
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
            title="Calls refused",
            description="Without the right credential, or not allowed.",
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
            description="Requests of principals that used theirs up.",
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
            description="Time until they expire, of each kind the first.",
            unit="s",
            width=6,
            queries=(
                Query(
                    expr="min by (file) (inferd_certificate_expiry_timestamp_seconds{$S}) - time()", legend="{{file}}"
                ),
            ),
        ),
        Panel(
            title="Changed files refused",
            description="Tokens, keys, policies and certificates that could not be used.",
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

SECTIONS = (OVERVIEW, QUEUE, BATCHING, RUNTIME, POLL_THREAD, SECURITY)

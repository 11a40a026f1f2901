"""The panels of models that come and go."""

from scripts.dashboard_parts import Panel, Query, Section

MODELS = Section(
    title="Models",
    panels=(
        Panel(
            title="States of versions",
            description="Number of instances with each version in each state; unloaded ones are unavailable.",
            queries=(
                Query(
                    expr="sum by (model, version, state) (inferd_model_state{$M}) > 0",
                    legend="{{model}} {{version}}, {{state}}",
                ),
            ),
        ),
        Panel(
            title="Loads and unloads",
            description="Loads that have ended, by outcome, and versions unloaded.",
            queries=(
                Query(
                    expr="sum by (model, outcome) (increase(inferd_model_loads_total{$M}[$__rate_interval]))",
                    legend="{{model}}, {{outcome}}",
                ),
                Query(
                    expr="sum by (model) (increase(inferd_model_unloads_total{$M}[$__rate_interval]))",
                    legend="{{model}}, unloaded",
                ),
            ),
        ),
        Panel(
            title="Time to load",
            description="Mean of the loads that became ready, since the start of each instance.",
            unit="s",
            queries=(
                Query(
                    expr="sum by (model) (inferd_model_load_duration_seconds_sum{$M})"
                    " / sum by (model) (inferd_model_load_duration_seconds_count{$M})",
                    legend="{{model}}",
                ),
            ),
        ),
        Panel(
            title="Memory of models",
            description="Of the models that are loaded, reserved for loads, and the budget.",
            unit="bytes",
            queries=(
                Query(expr="sum by (kind) (inferd_models_memory_bytes{$S})", legend="{{kind}}, loaded"),
                Query(expr="sum by (kind) (inferd_models_memory_reserved_bytes{$S})", legend="{{kind}}, reserved"),
                Query(expr="sum by (kind) (inferd_models_memory_budget_bytes{$S})", legend="{{kind}}, budget"),
            ),
        ),
        Panel(
            title="Loads on demand and evictions",
            description="Begun loads by cause, and models that left for others: idle ones, and ones in use.",
            queries=(
                Query(
                    expr="sum by (cause) (increase(inferd_model_load_causes_total{$M}[$__rate_interval]))",
                    legend="loaded, {{cause}}",
                ),
                Query(
                    expr="sum by (in_use) (increase(inferd_model_evictions_total{$M}[$__rate_interval]))",
                    legend="evicted, in use: {{in_use}}",
                ),
                Query(expr="sum(inferd_model_loads_waiting{$S})", legend="loads that wait for memory"),
            ),
        ),
        Panel(
            title="Cold requests",
            description="Share of the requests to each model that have found it not loaded.",
            unit="percentunit",
            queries=(
                Query(
                    expr="sum by (model) (rate(inferd_cold_requests_total{$M}[$__rate_interval]))"
                    " / sum by (model) (rate(inferd_requests_total{$M}[$__rate_interval]))",
                    legend="{{model}}",
                ),
            ),
        ),
        Panel(
            title="Instances",
            description="Batches that may run in parallel now, and as many as are likely under load.",
            queries=(
                Query(expr="sum by (model, version) (inferd_model_instances{$M})", legend="{{model}} {{version}}, now"),
                Query(
                    expr="sum by (model, version) (inferd_model_instances_under_load{$M})",
                    legend="{{model}} {{version}}, under load",
                ),
            ),
        ),
        Panel(
            title="Changes of instances",
            description="Changes of their number, by reason.",
            queries=(
                Query(
                    expr="sum by (reason) (increase(inferd_instance_changes_total{$M}[$__rate_interval]))",
                    legend="{{reason}}",
                ),
            ),
        ),
        Panel(
            title="Memory and device errors",
            description="Runs out of memory, versions whose session runs nothing, and attempts to open it again.",
            queries=(
                Query(
                    expr="sum by (model) (increase(inferd_out_of_memory_runs_total{$M}[$__rate_interval]))",
                    legend="{{model}}, out of memory",
                ),
                Query(
                    expr="sum by (model, version) (inferd_model_broken{$M})",
                    legend="{{model}} {{version}}, runs nothing",
                ),
                Query(
                    expr="sum by (outcome) (increase(inferd_session_reopens_total{$M}[$__rate_interval]))",
                    legend="opened again, {{outcome}}",
                ),
            ),
        ),
        Panel(
            title="Downloads of models",
            description="From remote repositories: bytes per second, and bytes that present loads still need.",
            unit="bytes",
            queries=(
                Query(
                    expr="sum(rate(inferd_remote_downloaded_bytes_total{$S}[$__rate_interval]))",
                    legend="downloaded in a second",
                ),
                Query(expr="sum(inferd_remote_pending_bytes{$S})", legend="still to be downloaded"),
                Query(expr="sum(inferd_remote_cache_bytes{$S})", legend="in the cache"),
            ),
        ),
    ),
)

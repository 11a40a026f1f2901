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
    ),
)

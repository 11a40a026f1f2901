"""The panels of language models."""

from scripts.dashboard_parts import Panel, Query, Section, quantiles, rate

_VERSION = "{{model}} {{version}}"


GENERATION = Section(
    title="Language models",
    panels=(
        Panel(
            title="Time to the first token",
            description="From the receipt of a request, the time in the queue included.",
            unit="s",
            queries=quantiles("inferd_time_to_first_token_seconds"),
        ),
        Panel(
            title="Time between tokens",
            description="Of each request, for each token.",
            unit="s",
            queries=quantiles("inferd_inter_token_latency_seconds"),
        ),
        Panel(
            title="Time of whole generations",
            description="From the receipt of a request to its end, whatever ended it.",
            unit="s",
            queries=quantiles("inferd_e2e_request_latency_seconds"),
        ),
        Panel(
            title="Tokens",
            description="Generated, and those of prompts that were processed, per second.",
            queries=(
                Query(expr=f"sum({rate('inferd_generation_tokens_total')})", legend="generated"),
                Query(expr=f"sum({rate('inferd_prompt_tokens_total')})", legend="prompts"),
            ),
        ),
        Panel(
            title="Sequences",
            description="Requests in the cache, their maximum, and requests in the queue.",
            queries=(
                Query(expr="sum by (model, version) (inferd_sequences_running{$M})", legend=f"{_VERSION}, running"),
                Query(expr="sum by (model, version) (inferd_sequences_limit{$M})", legend=f"{_VERSION}, at most"),
                Query(expr="sum by (model, version) (inferd_sequences_waiting{$M})", legend=f"{_VERSION}, waiting"),
            ),
        ),
        Panel(
            title="Cache in use",
            description="Part of the cache that is reserved for running sequences; maximum over instances.",
            unit="percentunit",
            queries=(Query(expr="max by (model, version) (inferd_kv_cache_usage_ratio{$M})", legend=_VERSION),),
        ),
        Panel(
            title="Ends of generations",
            description="By reason: a stop, the maximum length, cancelled, the deadline, an error.",
            unit="reqps",
            queries=(
                Query(
                    expr=f"sum by (finish_reason) ({rate('inferd_generation_requests_total')})",
                    legend="{{finish_reason}}",
                ),
            ),
        ),
        Panel(
            title="Tokens per request",
            description="Mean of the prompts, and of what was generated.",
            queries=tuple(
                Query(
                    expr=f"sum({rate(f'inferd_request_{kind}_tokens_sum')})"
                    f" / sum({rate(f'inferd_request_{kind}_tokens_count')})",
                    legend=kind,
                )
                for kind in ("prompt", "generation")
            ),
        ),
        Panel(
            title="Time of prompts",
            description="Part of the model's time that goes into prompts; the rest generates.",
            unit="percentunit",
            queries=(
                Query(
                    expr=f"sum by (model, version) ({rate('inferd_prefill_seconds_total')})"
                    f" / sum by (model, version) ({rate('inferd_inference_duration_seconds_sum')})",
                    legend=_VERSION,
                ),
            ),
        ),
    ),
)

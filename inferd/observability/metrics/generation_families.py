"""Metric families of language models; none without one. Pure functions."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.metrics_core import CounterMetricFamily, Metric

from inferd.observability.metrics.exposition import HistogramFamily
from inferd.observability.metrics.families import ModelLabels, ModelSample, gauge_family
from inferd.observability.metrics.generation import GenerationCounts, GenerationSample
from inferd.observability.metrics.histogram import Histogram

_MODEL = ("model", "version")

_COUNTERS: tuple[tuple[str, str, Callable[[GenerationCounts], float]], ...] = (
    ("inferd_prompt_tokens", "Tokens of prompts that were processed", lambda g: g.prompt_tokens),
    ("inferd_generation_tokens", "Generated tokens", lambda g: g.generated_tokens),
    ("inferd_offered_tokens", "Tokens offered: prompts and max_tokens, also of rejected", lambda g: g.offered_tokens),
    ("inferd_prefill_seconds", "Time of runs over prompts", lambda g: g.prefill_run_s),
)

_HISTOGRAMS: tuple[tuple[str, str, Callable[[GenerationCounts], Histogram]], ...] = (
    (
        "inferd_time_to_first_token_seconds",
        "Time from the receipt of a request to its first token",
        lambda g: g.first_token_s,
    ),
    ("inferd_inter_token_latency_seconds", "Time between tokens of a request", lambda g: g.token_interval_s),
    ("inferd_e2e_request_latency_seconds", "Time from the receipt of a request to its end", lambda g: g.duration_s),
    (
        "inferd_request_prefill_time_seconds",
        "Time from a request's first run to its first token",
        lambda g: g.prefill_s,
    ),
    ("inferd_iteration_tokens", "Tokens per run of the model", lambda g: g.run_tokens),
    ("inferd_request_prompt_tokens", "Tokens of the prompt per request", lambda g: g.request_prompt_tokens),
    ("inferd_request_generation_tokens", "Generated tokens per request", lambda g: g.request_generated_tokens),
    ("inferd_request_max_tokens", "Maximum of generated tokens per request", lambda g: g.request_max_tokens),
)

_GAUGES: tuple[tuple[str, str, Callable[[GenerationSample], float]], ...] = (
    ("inferd_sequences_running", "Sequences in the cache", lambda g: g.running),
    ("inferd_sequences_limit", "Sequences that may be there at a time", lambda g: g.max_running),
    ("inferd_sequences_waiting", "Sequences in the queue", lambda g: g.waiting),
    ("inferd_waiting_tokens", "Tokens to be reserved for those in the queue", lambda g: g.waiting_tokens),
    ("inferd_kv_cache_bytes", "Size of the cache", lambda g: g.cache_bytes),
    ("inferd_kv_cache_used_bytes", "Reserved for running sequences", lambda g: g.cache_used_bytes),
    ("inferd_kv_cache_usage_ratio", "Their ratio, from 0 to 1", lambda g: g.cache_usage),
    (
        "inferd_model_capacity_tokens_per_second",
        "Throughput of a full cache, in offered tokens/s",
        lambda g: g.capacity_tokens_per_s,
    ),
)


def generation_families(counts: Mapping[ModelLabels, GenerationCounts]) -> Iterator[Metric]:
    """Yield the counts of language models."""
    if not counts:
        return
    for name, text, read in _COUNTERS:
        family = CounterMetricFamily(name, text, labels=_MODEL)
        for labels, each in counts.items():
            family.add_metric(labels, read(each))
        yield family
    finished = CounterMetricFamily("inferd_generation_requests", "Ended generations", labels=(*_MODEL, "finish_reason"))
    for labels, each in counts.items():
        for reason, number in each.finished.items():
            finished.add_metric((*labels, reason), number)
    yield finished
    for name, text, histogram in _HISTOGRAMS:
        yield HistogramFamily(name, text, _MODEL, [(labels, histogram(each)) for labels, each in counts.items()])


def sequence_families(models: Iterable[ModelSample]) -> Iterator[Metric]:
    """Yield sequences, cache and capacity of the loaded language models."""
    samples = {(each.model, each.version): each.generation for each in models if each.generation is not None}
    if samples:
        for gauge in _GAUGES:
            yield gauge_family(*gauge, _MODEL, samples)

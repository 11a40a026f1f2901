"""Counts of one version of a language model, for Prometheus; the names of the metrics follow vLLM's concepts."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inferd.observability.metrics.histogram import DURATION_BOUNDS_S, Histogram
from inferd.observability.metrics.models import BatchReport, ModelStats, RunOutcome

#: How generations end; label values of ``inferd_generation_requests_total``. The first two end with an answer.
FINISH_REASONS = ("stop", "length", "cancelled", "deadline", "error")

#: Bucket bounds of whole generations and of the time to the first token.
GENERATION_BOUNDS_S = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
    *(10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)

#: Bucket bounds of the tokens of requests and of runs.
TOKEN_BOUNDS = tuple(float(2**exponent) for exponent in range(18))
RUN_TOKEN_BOUNDS = tuple(float(2**exponent) for exponent in range(12))


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedGeneration:
    """A generation that has ended. Seconds: in the queue, from then to the first token, and from receipt to the end.

    ``reason`` is one of the `FINISH_REASONS`. One that never ran has no generated tokens.
    """

    reason: str
    prompt_tokens: int
    generated_tokens: int
    max_tokens: int
    queue_s: float
    prefill_s: float
    duration_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationSample:
    """State of a loaded language model at one moment.

    ``waiting_tokens`` are those that the requests in the queue would reserve, ``cache_used_bytes`` those reserved for
    ``running`` sequences, of which there may be ``max_running``. ``capacity_tokens_per_s`` are those that leave the
    queue in a second while the cache is full, 0 while that is unknown.
    """

    running: int
    max_running: int
    waiting: int
    waiting_tokens: int
    cache_bytes: int
    cache_used_bytes: int
    capacity_tokens_per_s: float = 0.0

    @property
    def cache_usage(self) -> float:
        """The reserved part of the cache, from 0 to 1."""
        return self.cache_used_bytes / self.cache_bytes if self.cache_bytes else 0.0

    @property
    def in_use(self) -> float:
        """The part of the cache or of the places for sequences that is in use, whichever is more, from 0 to 1."""
        return max(self.cache_usage, self.running / self.max_running)


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationCounts:
    """The numbers of one version; see docs/metrics.md. Durations in seconds."""

    offered_tokens: int
    prompt_tokens: int
    generated_tokens: int
    finished: Mapping[str, int]
    prefill_run_s: float
    first_token_s: Histogram
    token_interval_s: Histogram
    prefill_s: Histogram
    duration_s: Histogram
    run_tokens: Histogram
    request_prompt_tokens: Histogram
    request_generated_tokens: Histogram
    request_max_tokens: Histogram


class _Runs:
    """Counts that only the engine's thread writes, and therefore without a lock."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self.prefill_s = 0.0
        self.first_token_s = Histogram(GENERATION_BOUNDS_S)
        self.token_interval_s = Histogram(DURATION_BOUNDS_S)
        self.run_tokens = Histogram(RUN_TOKEN_BOUNDS)


class _Requests:
    """Requests that have ended; under the lock."""

    def __init__(self) -> None:
        # All reasons from the start, because `rate()` misses the first increase of a new series.
        self.finished = dict.fromkeys(FINISH_REASONS, 0)
        self.prefill_s = Histogram(GENERATION_BOUNDS_S)
        self.duration_s = Histogram(GENERATION_BOUNDS_S)
        self.prompt_tokens = Histogram(TOKEN_BOUNDS)
        self.generated_tokens = Histogram(TOKEN_BOUNDS)
        self.max_tokens = Histogram(TOKEN_BOUNDS)

    def add(self, ended: FinishedGeneration) -> None:
        self.finished[ended.reason] += 1
        if ended.generated_tokens:
            self.prefill_s.observe(ended.prefill_s)
            self.prompt_tokens.observe(ended.prompt_tokens)
            self.generated_tokens.observe(ended.generated_tokens)
            self.max_tokens.observe(ended.max_tokens)
            self.duration_s.observe(ended.duration_s)


class GenerationStats:
    """Counts what the engine of a language model reports.

    Runs, requests that fail, and time in the queue are counted in ``model`` as well, so that a language model is in all
    metrics of ordinary ones that make sense for it: a row is a sequence in a run.

    Invariant: `offered` is called by the poll thread; `started`, `prefill`, `first_token`, `step`, `token_intervals`
    and `run_failed` by the engine's; the rest by any. A reader may miss what is being added just then.
    """

    def __init__(self, model: ModelStats | None = None) -> None:
        #: The counts that ordinary models have as well.
        self.model = ModelStats() if model is None else model
        self._offered_tokens = 0
        # Queue times of requests whose first run goes on.
        self._waited_s: list[float] = []
        self._runs = _Runs()
        self._requests = _Requests()
        self._lock = threading.Lock()

    def offered(self, prompt_tokens: int, max_tokens: int) -> None:
        """Count a request, whether it is admitted or rejected."""
        self._offered_tokens += prompt_tokens + max_tokens

    def started(self, queue_s: float) -> None:
        """Count a request whose first run begins, ``queue_s`` after its admission."""
        self._waited_s.append(queue_s)

    def prefill(self, tokens: int, seconds: float) -> None:
        """Count a run over ``tokens`` of one prompt."""
        runs = self._runs
        runs.prompt_tokens += tokens
        runs.prefill_s += seconds
        runs.run_tokens.observe(tokens)
        self._ran(1, seconds, RunOutcome.COMPLETED)

    def first_token(self, seconds: float) -> None:
        """Count the first token of a request, ``seconds`` after its receipt."""
        self._runs.generated_tokens += 1
        self._runs.first_token_s.observe(seconds)

    def step(self, rows: int, seconds: float) -> None:
        """Count a run that has generated a further token for each of ``rows`` sequences."""
        runs = self._runs
        runs.generated_tokens += rows
        runs.run_tokens.observe(rows)
        self._ran(rows, seconds, RunOutcome.COMPLETED)

    def token_intervals(self, seconds: float, count: int) -> None:
        """Count ``count`` further tokens, each of them ``seconds`` after the one before it."""
        self._runs.token_interval_s.observe(seconds, count)

    def run_failed(self, rows: int, seconds: float) -> None:
        """Count a run that failed."""
        self._ran(rows, seconds, RunOutcome.FAILED)

    def rejected(self, duration_s: float, overload_reason: str) -> None:
        """Count a request that was rejected or shed ``duration_s`` after its receipt; it is not `finished` as well."""
        self.model.failed(duration_s, overload_reason)

    def finished(self, ended: FinishedGeneration) -> None:
        """Count the end of an admitted request."""
        with self._lock:
            self._requests.add(ended)
        if ended.reason in ("stop", "length"):
            self.model.answered_by_runs(ended.queue_s, ended.duration_s - ended.queue_s, ended.duration_s)
        elif ended.reason != "cancelled":
            self.model.failed(ended.duration_s, by_model=ended.reason == "error")

    def read(self) -> GenerationCounts:
        """Return the present numbers."""
        runs, requests = self._runs, self._requests
        with self._lock:
            return GenerationCounts(
                offered_tokens=self._offered_tokens,
                prompt_tokens=runs.prompt_tokens,
                generated_tokens=runs.generated_tokens,
                finished=dict(requests.finished),
                prefill_run_s=runs.prefill_s,
                first_token_s=runs.first_token_s.copy(),
                token_interval_s=runs.token_interval_s.copy(),
                prefill_s=requests.prefill_s.copy(),
                duration_s=requests.duration_s.copy(),
                run_tokens=runs.run_tokens.copy(),
                request_prompt_tokens=requests.prompt_tokens.copy(),
                request_generated_tokens=requests.generated_tokens.copy(),
                request_max_tokens=requests.max_tokens.copy(),
            )

    def _ran(self, rows: int, seconds: float, outcome: RunOutcome) -> None:
        waited_s: Sequence[float] = ()
        if self._waited_s:
            waited_s, self._waited_s = self._waited_s, []
        self.model.batch_done(
            BatchReport(
                rows=rows,
                decode_s=(),
                queue_s=waited_s,
                stack_s=0.0,
                run_s=seconds,
                split_s=0.0,
                outcome=outcome,
            )
        )

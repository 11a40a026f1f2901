"""Results of the client: outputs with their timing, items of a stream, and descriptions of models."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferd.client.errors import InferdError


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Where the server spent the time of one request: waiting, and running the batch of ``batch_rows`` rows."""

    queue_s: float
    run_s: float
    batch_rows: int


# Arrays have no equality that is true or false, so results are equal only to themselves.
@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Result(Mapping[str, NDArray[Any]]):
    """The answer to one request: a mapping of its outputs by their names.

    ``outputs`` are in the order asked for, or the model's. Arrays are read-only views of the received message; copy
    those that you want to change. BYTES outputs are ``object`` arrays of ``bytes``. ``metadata`` is what came with the
    answer to a call that sent metadata of its own, and empty otherwise.
    """

    outputs: Mapping[str, NDArray[Any]]
    model: str
    version: str
    request_id: str
    timing: Timing
    metadata: Mapping[str, str | bytes] = field(default_factory=dict)

    def __getitem__(self, output: str) -> NDArray[Any]:
        """Return one output by its name."""
        return self.outputs[output]

    def __iter__(self) -> Iterator[str]:
        """Go through the names of the outputs."""
        return iter(self.outputs)

    def __len__(self) -> int:
        """Count the outputs."""
        return len(self.outputs)

    def __bool__(self) -> bool:
        """Stay true without outputs: there is a result."""
        return True

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamItem:
    """The end of one request of a stream.

    ``index`` counts the requests from 0 in the order in which they were given. ``error`` is None for a request that
    has a result.
    """

    index: int
    request_id: str
    outcome: Result | InferdError

    @property
    def error(self) -> InferdError | None:
        """Why there is no result, or None."""
        return self.outcome if isinstance(self.outcome, InferdError) else None

    def result(self) -> Result:
        """Return the result, or raise the error that came instead."""
        if isinstance(self.outcome, InferdError):
            raise self.outcome
        return self.outcome


class ModelState(StrEnum):
    """The life of a model version, named as in the contract."""

    UNSPECIFIED = "UNSPECIFIED"
    LOADING = "LOADING"
    READY = "READY"
    FAILED = "FAILED"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"
    VERIFYING = "VERIFYING"
    WARMING = "WARMING"
    ON_DEMAND = "ON_DEMAND"


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorInfo:
    """One declared input or output.

    ``datatype`` is the Open Inference Protocol's name, for example ``FP32``, and ``dtype`` numpy's. ``shape`` has an
    ``int`` for a fixed dimension, a ``str`` for an open one with a name and ``None`` for one without. ``batch_axis``
    is the dimension that counts rows, or None for a tensor that a whole batch shares. ``optional`` is an input that a
    request may leave out, because the model has a default for it.
    """

    name: str
    datatype: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | str | None, ...]
    batch_axis: int | None
    optional: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchingInfo:
    """How the server batches and queues requests to a model.

    ``verdict`` says whether rows of several requests may run together: ``proven``, ``contradicted`` or ``unproven``;
    it is empty if the server has not read the model yet or does not say. ``verdict_reason`` says what shows it. In
    ``checks`` batches one request was run again alone; in ``mismatches`` of them its answer differed. Between
    ``min_instances`` and ``instances`` batches may run at a time, as the load requires; ``present_instances`` may now.
    """

    enabled: bool
    max_batch_size: int
    max_wait_s: float
    instances: int
    max_queue_rows: int
    backpressure: str
    priority_levels: int
    verdict: str = ""
    verdict_reason: str = ""
    checks: int = 0
    mismatches: int = 0
    min_instances: int = 0
    present_instances: int = 0


@dataclass(frozen=True, slots=True)
class PredictedRun:
    """Predicted duration of a run of ``rows``, and the one that 95 % of such runs should not exceed."""

    rows: int
    seconds: float
    p95_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCost:
    """Predicted durations of runs of a model, by their rows.

    ``sizes`` are in order of rows; the last is the largest batch. ``error`` is the typical relative error of recent
    predictions, 0.1 for 10 %; None before the second run. They come from ``runs``, or, if that is 0, from warm-up.
    """

    sizes: tuple[PredictedRun, ...]
    error: float | None
    runs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Residency:
    """When a version is in memory, and what it takes there: bytes of the host and of devices, 0 until it is loaded.

    ``on_demand``: the first request loads it, and it is unloaded again when others need its memory.
    """

    on_demand: bool = False
    memory_bytes: int = 0
    device_memory_bytes: int = 0
    load_s: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationInfo:
    """Capabilities of a language model, and its memory.

    ``context_length`` tokens are the most of a prompt and its answer together; ``default_max_tokens`` the answer's of
    requests that set none. ``cache_bytes`` is what sequences may take together, ``cache_bytes_in_use`` what is promised
    to running ones at present. Without ``has_tokenizer`` it takes and gives token ids only.
    """

    context_length: int
    vocabulary_size: int
    max_sequences: int
    cache_bytes_per_token: int
    cache_bytes: int
    cache_bytes_in_use: int
    has_tokenizer: bool
    has_chat_template: bool
    default_max_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """One version of a model. ``inputs`` and ``outputs`` are empty until the server has read the model.

    ``run_cost`` is None while the server knows nothing of it, or if it does not say, and ``residency`` if it does not.
    ``generation`` is None of a model that does not generate text, and until the server has read the model.
    """

    name: str
    version: str
    state: ModelState
    reason: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    batching: BatchingInfo
    providers: tuple[str, ...]
    run_cost: RunCost | None = None
    residency: Residency | None = None
    generation: GenerationInfo | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexEntry:
    """One line of the index of a server's repositories.

    ``version`` is empty for a model that was never loaded. ``reason`` says why the state is FAILED or UNAVAILABLE.
    """

    name: str
    version: str
    state: ModelState
    reason: str


@dataclass(frozen=True, slots=True)
class Shadow:
    """A version that gets copies of requests to the others, to compare its answers; callers do not wait for it.

    ``version`` is its number or label. ``share`` of the requests is copied, from 0 to 1. Two floats are equal up to the
    relative difference ``tolerance``.
    """

    version: str
    share: float = 1.0
    tolerance: float = 0.001


@dataclass(frozen=True, slots=True)
class Routing:
    """How requests are routed to the versions of a model.

    ``labels`` are numbers of versions by label, which requests may name in place of a version. ``weights``, by number
    or label, share the requests that name no version; without them the highest ready version gets all.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    shadow: Shadow | None = None

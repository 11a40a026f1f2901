"""All settings, with unit, default and bounds. Validated once, immutable afterwards."""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, PositiveInt, Tag, model_validator

from inferd.config.generation import GenerationSettings
from inferd.config.logging import LogSettings
from inferd.config.remote import ModelPlace, RemoteSettings
from inferd.config.repository import RepositorySettings, VersionPolicy
from inferd.config.routing import RoutingSettings
from inferd.config.runtime_options import reaches_outside
from inferd.config.section import Section, merge, validation_error
from inferd.config.security import SecuritySettings
from inferd.config.server import ServerSettings
from inferd.config.tensors import InputOverride, OutputOverride, WarmupSample
from inferd.config.tracing import TracingSettings
from inferd.config.validation import Problem, SettingPath, SettingsError, validate

_MIB = 1024 * 1024
_MOST_INSTANCES = 64


class Backpressure(StrEnum):
    """What happens to a request when the queue is full."""

    REJECT = "reject"
    CALLER_RUNS = "caller_runs"
    BLOCK = "block"
    SHED_OLDEST = "shed_oldest"


class PriorityQueueSettings(Section):
    """The queue of one priority, where it differs from that of the model."""

    max_rows: int | None = Field(default=None, ge=1, le=1_000_000)
    """Maximum number of waiting rows of this priority; further requests are rejected, whatever queue.policy is."""
    default_timeout_ms: float | None = Field(default=None, ge=0.0)
    """Timeout of requests without a deadline or timeout; 0 is none. Null: queue.default_timeout_ms."""
    allow_timeout_override: bool | None = None
    """Whether the timeout of a request counts. Null: queue.allow_timeout_override."""


class QueueSettings(Section):
    """The bounded queue of each model version."""

    policy: Backpressure = Backpressure.REJECT
    """What happens when the queue is full: reject, caller_runs, block or shed_oldest."""
    max_rows: int = Field(default=8192, ge=1, le=1_000_000)
    """Maximum number of waiting rows."""
    max_delay_ms: float = Field(default=250.0, ge=0.0)
    """Maximum expected wait of a request, estimated from the recent drain rate: the queue counts as full above it, \
before it reaches max_rows, but never below two batches per instance. Fast models have less: three full batches, or \
100 ms. 0 leaves max_rows as the only limit."""
    max_bytes: int = Field(default=256 * _MIB, ge=1024)
    """Maximum bytes of waiting inputs."""
    caller_runs_limit: int = Field(default=2, ge=1, le=256)
    """With caller_runs: maximum number of requests running outside the queue at a time."""
    max_blocked: int = Field(default=256, ge=1, le=1_000_000)
    """With block: maximum number of requests waiting for space in the queue."""
    default_timeout_ms: float = Field(default=30_000.0, ge=0.0)
    """Timeout of requests without a deadline or timeout; 0 is none."""
    allow_timeout_override: bool = True
    """Whether the timeout that a request names counts. If false, default_timeout_ms applies to all requests; the \
deadline of the call holds in any case."""
    priority_levels: int = Field(default=3, ge=1, le=100)
    """Number of priorities; 1 is served first. The number after the last one is the scavenger class: served while \
nothing else waits, and the first to be evicted."""
    default_priority: int = Field(default=2, ge=1, le=100)
    """Priority of requests without one."""

    low_priority_share: float = Field(default=0.05, ge=0.0, le=0.5)
    """Rows that each lower priority gets while it waits, as a share of those served at higher ones, so that it is \
slowed and not starved. 0 serves priorities strictly in order."""
    by_priority: dict[int, PriorityQueueSettings] = Field(default_factory=dict)
    """Settings of single priorities, by number: max_rows, default_timeout_ms and allow_timeout_override."""

    @model_validator(mode="after")
    def _validate_priorities(self) -> Self:
        if self.default_priority > self.priority_levels:
            text = f"expected at most priority_levels, which is {self.priority_levels}, got {self.default_priority}"
            raise validation_error(text, setting="default_priority")
        unknown = [priority for priority in self.by_priority if not 1 <= priority <= self.priority_levels]
        if unknown:
            text = f"expected priorities from 1 to priority_levels, which is {self.priority_levels}, got {unknown[0]}"
            raise validation_error(text, setting="by_priority")
        return self


class InstanceRange(Section):
    """Bounds of a number of instances that follows the load."""

    min: int = Field(default=1, ge=1, le=_MOST_INSTANCES)
    """Number of instances without load."""
    max: int = Field(ge=1, le=_MOST_INSTANCES)
    """Maximum number of instances."""

    @model_validator(mode="after")
    def _validate_order(self) -> Self:
        if self.min > self.max:
            text = f"expected at most max, which is {self.max}, got {self.min}"
            raise validation_error(text, setting="min")
        return self


def _kind_of_instances(value: object) -> str:
    return "range" if isinstance(value, Mapping | InstanceRange) else "number"


class BatchingSettings(Section):
    """How requests to a model are combined into batches."""

    enabled: bool = True
    """Combine rows of several requests where the model allows it. If false, each request runs alone."""
    max_batch_size: int = Field(default=64, ge=1, le=65536)
    """Maximum number of rows in a batch."""
    preferred_sizes: list[PositiveInt] = Field(default_factory=list)
    """Numbers of rows that batches should have: as soon as the requests that go first add up to one, the largest such \
batch runs. Others are held as long as max_wait_ms allows, and then run whatever their size."""
    max_wait_ms: float = Field(default=10.0, ge=0.0, le=60_000.0)
    """Maximum time to hold a partial batch for more rows. It is held only while more are likely to arrive, and not \
longer than batching saves, as measured on earlier runs."""
    instances: Annotated[
        Annotated[int, Field(ge=1, le=_MOST_INSTANCES), Tag("number")] | Annotated[InstanceRange, Tag("range")],
        Discriminator(_kind_of_instances),
    ] = 1
    """Number of batches of the model that may run concurrently, from 1 to 64; or {min, max}, between which it follows \
the load: one more while requests wait for running batches and it makes the model faster, as measured, and fewer when \
idle. Pending rows are split across idle instances if that finishes sooner. The cores are divided among the instances, \
or among min of them."""
    one_core_runs: bool = True
    """While full batches of one priority wait, run a batch on each core instead of one on all cores, with a second \
session that is opened then. Only on 2 to 4 cores, with one instance, runtime.intra_op_threads: 0, weights of up to \
256 MiB, and if the answers are the same bit for bit (docs/overload.md)."""
    check_share: float = Field(default=0.01, ge=0.0, le=1.0)
    """Share of the model's run time spent on re-running single requests of a batch alone, to compare their results. \
A difference disables batching for that version. 0 disables the check."""

    @property
    def min_instances(self) -> int:
        """Number of instances without load."""
        return self.instances.min if isinstance(self.instances, InstanceRange) else self.instances

    @property
    def max_instances(self) -> int:
        """Maximum number of instances."""
        return self.instances.max if isinstance(self.instances, InstanceRange) else self.instances


class RuntimeSettings(Section):
    """How ONNX Runtime runs a model."""

    providers: Literal["auto"] | Annotated[list[str], Field(min_length=1)] = "auto"
    """auto: CUDA if the installed build and a device support it, else CPU. Or a list in order of preference: cpu, \
cuda, tensorrt, openvino, or any provider name of the installed build of ONNX Runtime."""
    provider_options: dict[str, dict[str, Annotated[str, Field(coerce_numbers_to_str=True)]]] = Field(
        default_factory=dict
    )
    """Options by provider, as documented by ONNX Runtime. Those of a model may name libraries, files or addresses \
only if the server's own settings have the same; directories of TensorRT's caches are free."""
    intra_op_threads: int = Field(default=0, ge=0, le=1024)
    """Threads within one operator; 0 is the number of available cores divided by the number of instances, or by the \
least that batching.instances allows (1 on a GPU), or fewer with so many model versions that their idle threads would \
be too many (docs/scaling.md)."""
    inter_op_threads: int = Field(default=1, ge=0, le=1024)
    """Number of operators that may run in parallel; above 1 the graph runs in parallel mode. 0 is the number of \
available cores."""
    allow_spinning: bool = False
    """Let idle threads of ONNX Runtime spin: slightly lower latency, at the cost of a whole core each. Those of \
language models spin for 20 microseconds in any case, or for session.intra_op.spin_duration_us in session_options."""
    graph_optimization: Literal["disabled", "basic", "extended", "all"] = "all"
    """How far ONNX Runtime optimizes the graph when it opens the file."""
    memory_arena: bool = True
    """Keep the memory of runs for later ones (ONNX Runtime's CPU memory arena)."""
    shrink_after_s: float = Field(default=5.0, ge=0.0, le=86_400.0)
    """After this time without requests, free the memory that runs larger than one row have left in the arenas, on the \
CPU and on CUDA; 0 keeps it."""
    memory_pattern: bool = True
    """Plan the memory of a run from earlier runs of the same shapes."""
    session_options: dict[
        Annotated[str, Field(min_length=1, max_length=1000)],
        Annotated[str, Field(coerce_numbers_to_str=True, max_length=2000)],
    ] = Field(default_factory=dict)
    """Configuration entries of the session, as documented by ONNX Runtime; none that name files."""
    max_run_ms: float = Field(default=60_000.0, ge=1.0, le=86_400_000.0)
    """Maximum time of one run of the model. A longer run is terminated, and its requests fail with DEADLINE_EXCEEDED \
at once. A run whose requests have all been cancelled is terminated too."""
    custom_ops: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    """Libraries of custom operators: paths, relative to the working directory, or onnxruntime-extensions for the \
library of that Python package, which must be installed. They run as code in the server. A model.yaml may only name \
libraries that the server's own settings list, written the same way."""
    warmup: bool = True
    """Run the model with batches of increasing size before it becomes ready. Batch axes are verified in any case."""
    verdict_cache: Path | None = Path("~/.cache/inferd/verdicts")
    """Directory that caches which models have been verified to batch, so that a restart need not verify them again; \
null disables it. A directory that is not writable is ignored."""

    @model_validator(mode="after")
    def _validate_session_options(self) -> Self:
        for name in self.session_options:
            if name.endswith(".allow_spinning"):
                text = f"expected allow_spinning in its own setting, runtime.allow_spinning, got {name}"
            elif "file" in name or "path" in name:
                text = f"expected entries that name no files, got {name}"
            else:
                continue
            raise validation_error(text, setting="session_options")
        return self


class ModelSettings(Section):
    """Settings of one model: the server's, overridden by its model.yaml."""

    file: str = ""
    """Name of the model's file in each version directory. Empty: model.onnx, or the only .onnx file."""
    queue: QueueSettings = QueueSettings()
    batching: BatchingSettings = BatchingSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    generation: GenerationSettings = GenerationSettings()
    batch_axes: Literal["auto", "first", "none"] = "auto"
    """auto: find and verify the dimensions that count rows. first: the first one of every input and output does, \
without proof, except where a batch_axis is set; optional inputs with a fixed one are served only if inputs names \
them. none: no dimension does, so that a request is one whole, \
whatever its shapes, and runs alone."""
    warmup: list[WarmupSample] = Field(default_factory=list)
    """Requests that the model must answer before it becomes ready, in addition to runtime.warmup; a failing one fails \
the load. Each has name, batch_size, count and inputs, by name: datatype, dims (of one row), and fill (zero or random) \
or file (in the directory warmup of the model)."""
    inputs: dict[str, InputOverride] = Field(default_factory=dict)
    """By name of the input."""
    outputs: dict[str, OutputOverride] = Field(default_factory=dict)
    """By name of the output."""
    served_outputs: Literal["all", "listed"] = "all"
    """listed: clients see, and the model computes, only those of its outputs that outputs names."""
    routing: RoutingSettings = RoutingSettings()
    versions: VersionPolicy | None = None
    """Which versions are served: all, {latest: N}, or a list of numbers; the server's repository.versions if null."""
    on_demand: bool | None = None
    """Load the model when the first request for it comes; the server's repository.on_demand if null."""
    pinned: bool = False
    """Load the model at start, and never unload it to make room for others."""
    loose_dimensions: list[str] = Field(default_factory=list)
    """Names of dynamic dimensions that may differ between the inputs of one request."""

    @model_validator(mode="after")
    def _validate_batching(self) -> Self:
        _validate_batching(self.queue, self.batching)
        return self

    @model_validator(mode="after")
    def _validate_axes(self) -> Self:
        tensors = (*self.inputs.values(), *self.outputs.values())
        if self.batch_axes == "none" and any(tensor.batch_axis is not None for tensor in tensors):
            text = "expected auto, because a batch_axis is set, got none"
            raise validation_error(text, setting="batch_axes")
        return self

    @model_validator(mode="after")
    def _validate_outputs(self) -> Self:
        if self.served_outputs == "listed" and not self.outputs:
            text = "expected outputs beside it, which names them, got listed"
            raise validation_error(text, setting="served_outputs")
        return self

    @model_validator(mode="after")
    def _validate_file(self) -> Self:
        if "/" in self.file:
            text = f"expected the name of a file, without directories, got {self.file}"
            raise validation_error(text, setting="file")
        return self


class ApiSettings(Section):
    """Limits and statuses of the inference APIs."""

    overload_status: Literal["RESOURCE_EXHAUSTED", "UNAVAILABLE"] = "RESOURCE_EXHAUSTED"
    """Status of requests rejected because of overload; Triton's clients expect UNAVAILABLE."""
    max_message_requests: int = Field(default=1024, ge=1, le=1_000_000)
    """Maximum number of requests in one message of StreamInfer."""
    max_elements: int = Field(default=1_000_000, ge=1, le=2**31 - 1)
    """Maximum number of elements in all typed lists of a request, and in one BYTES tensor. Raw bytes of other tensors \
are limited by server.max_message_bytes only."""


class Settings(Section):
    """All settings of a server."""

    models: list[ModelPlace] = Field(default_factory=list)
    """Model files, directories with one, or repositories; paths, or addresses such as s3://bucket/models. NAME=PATH \
gives a model another name than its path has. Empty: the built-in demo model."""
    repository: RepositorySettings = RepositorySettings()
    remote: RemoteSettings = RemoteSettings()
    server: ServerSettings = ServerSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()
    api: ApiSettings = ApiSettings()
    security: SecuritySettings = SecuritySettings()
    queue: QueueSettings = QueueSettings()
    batching: BatchingSettings = BatchingSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    generation: GenerationSettings = GenerationSettings()

    @model_validator(mode="after")
    def _validate_batching(self) -> Self:
        _validate_batching(self.queue, self.batching)
        return self

    def for_model(
        self, overrides: Mapping[str, Any], origin_of: Callable[[SettingPath], str] = lambda _: "model.yaml"
    ) -> ModelSettings:
        """Apply the contents of a model.yaml to the sections that models share.

        ``origin_of`` returns the file that has the setting at a path. Raises `SettingsError` for each setting in
        ``overrides`` that is unknown or invalid, and for libraries, files and addresses that these settings do not
        have: write access to models must not mean running code.
        """
        shared = self.model_dump(include={"queue", "batching", "runtime", "generation"})
        merged = merge({**shared, "inputs": {}, "outputs": {}}, overrides)
        settings = validate(ModelSettings, merged, origin_of=origin_of)
        self._require_listed(settings.runtime.custom_ops, origin_of)
        self._require_own_options(settings.runtime, origin_of)
        return settings

    def _require_listed(self, custom_ops: Sequence[str], origin_of: Callable[[SettingPath], str]) -> None:
        # Compared as text: a path that resolves to the same file now may resolve to another one when it is loaded.
        unlisted = [library for library in custom_ops if library not in self.runtime.custom_ops]
        if unlisted:
            text = f"expected only libraries that the server's own settings list as well, got {', '.join(unlisted)}"
            origin = origin_of(("runtime", "custom_ops"))
            raise SettingsError([Problem(name="runtime.custom_ops", text=text, origin=origin)])

    def _require_own_options(self, runtime: RuntimeSettings, origin_of: Callable[[SettingPath], str]) -> None:
        for provider, options in runtime.provider_options.items():
            own = self.runtime.provider_options.get(provider, {})
            for name, value in options.items():
                if reaches_outside(name) and value != own.get(name):
                    text = "expected no file, library or address, unless the server's own settings have the same"
                    setting = ("runtime", "provider_options", provider, name)
                    raise SettingsError([Problem(name=".".join(setting), text=text, origin=origin_of(setting))])


def _validate_batching(queue: QueueSettings, batching: BatchingSettings) -> None:
    if batching.enabled and batching.max_batch_size > queue.max_rows:
        text = f"expected at most queue.max_rows, which is {queue.max_rows}, got {batching.max_batch_size}"
        raise validation_error(text, setting="batching.max_batch_size")
    if batching.enabled and batching.preferred_sizes and max(batching.preferred_sizes) > batching.max_batch_size:
        largest = max(batching.preferred_sizes)
        text = f"expected at most batching.max_batch_size, which is {batching.max_batch_size}, got {largest}"
        raise validation_error(text, setting="batching.preferred_sizes")
    timeouts = {"queue.default_timeout_ms": queue.default_timeout_ms}
    for priority, own in queue.by_priority.items():
        if own.default_timeout_ms is not None:
            timeouts[f"queue.by_priority.{priority}.default_timeout_ms"] = own.default_timeout_ms
    for name, timeout_ms in timeouts.items():
        if 0 < timeout_ms <= batching.max_wait_ms:
            text = f"expected less than {name}, which is {timeout_ms}, got {batching.max_wait_ms}"
            raise validation_error(text, setting="batching.max_wait_ms")

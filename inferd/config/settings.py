"""Every setting there is, with its unit, default and bounds. Validated once, frozen ever after."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


Port = Annotated[int, Field(ge=0, le=65535)]
_MIB = 1024 * 1024


class ServerSettings(_Section):
    """Ports, limits and the way to stop."""

    host: str = "127.0.0.1"
    """Address to listen on. The default is reachable from this machine only; 0.0.0.0 or [::] is every interface."""
    grpc_port: Port = 8001
    """Port of the gRPC server; 0 takes a free one."""
    http_port: Port = 8002
    """Port of /metrics, /livez and /readyz; 0 takes a free one."""
    max_message_bytes: int = Field(default=64 * _MIB, ge=1024, le=2**31 - 1)
    """Largest message that is accepted or sent."""
    max_concurrent_streams: int = Field(default=256, ge=1, le=2**31 - 1)
    """Calls that one connection may have open at a time; HTTP/2 holds the others back at the client."""
    armed_calls: int = Field(default=128, ge=1, le=4096)
    """Calls that the core may hand over before the server has looked at the last one."""
    max_inflight_requests: int = Field(default=8192, ge=1)
    """Unary calls that may be open at once over all models; further ones are refused before they are read."""
    blocking_threads: int = Field(default=4, ge=1, le=256)
    """Threads for handlers that may block: reflection, channelz and health."""
    reflection: bool = True
    """Offer server reflection, which grpcurl needs."""
    channelz: bool = False
    """Offer channelz, the debugging service of gRPC's own library."""
    drain_delay_s: float = Field(default=0.0, ge=0.0, le=600.0)
    """How long to go on serving after a stop signal with health already NOT_SERVING, so that load balancers notice."""
    drain_grace_s: float = Field(default=25.0, ge=0.0, le=3600.0)
    """How long admitted requests may take to finish before they are cancelled."""


class LogFormat(StrEnum):
    """How log lines look."""

    JSON = "json"
    HUMAN = "human"


class LogSettings(_Section):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe level that is written; debug adds a line per message of a stream."""
    format: LogFormat = LogFormat.JSON
    """json, one object per line, or human."""
    access: bool = True
    """Write a line for each RPC."""


class Backpressure(StrEnum):
    """What happens to a request when the queue is full."""

    REJECT = "reject"
    CALLER_RUNS = "caller_runs"
    BLOCK = "block"
    SHED_OLDEST = "shed_oldest"


class QueueSettings(_Section):
    """The bounded queue of each model version."""

    policy: Backpressure = Backpressure.REJECT
    """What happens when the queue is full: reject, caller_runs, block or shed_oldest."""
    max_rows: int = Field(default=1024, ge=1, le=1_000_000)
    """Rows that may wait, at most."""
    max_bytes: int = Field(default=256 * _MIB, ge=1024)
    """Bytes of inputs that may wait, at most."""
    caller_runs_limit: int = Field(default=2, ge=1, le=256)
    """Under caller_runs: requests that may run outside the queue at a time."""
    max_blocked: int = Field(default=256, ge=1, le=1_000_000)
    """Under block: requests that may wait for room, at most."""
    default_timeout_ms: float = Field(default=30_000.0, ge=0.0)
    """Timeout of a request that brings neither deadline nor timeout; 0 is none."""
    priority_levels: int = Field(default=3, ge=1, le=100)
    """Priorities run from 1, served first, to this."""
    default_priority: int = Field(default=2, ge=1, le=100)
    """Priority of a request that names none."""

    @model_validator(mode="after")
    def _default_within_levels(self) -> "QueueSettings":
        if self.default_priority > self.priority_levels:
            msg = f"default_priority is {self.default_priority}, expected at most priority_levels, {self.priority_levels}"
            raise ValueError(msg)
        return self


class BatchingSettings(_Section):
    """How requests to a model are put together."""

    enabled: bool = True
    """Stack rows of several requests where the model allows it. Off: each request runs alone."""
    max_batch_size: int = Field(default=64, ge=1, le=65536)
    """Rows of a batch, at most."""
    max_wait_ms: float = Field(default=0.0, ge=0.0, le=60_000.0)
    """How long an incomplete batch may be held for further rows that are to be expected."""
    instances: int = Field(default=1, ge=1, le=64)
    """Batches of the model that may run at the same time."""


class RuntimeSettings(_Section):
    """How ONNX Runtime runs a model."""

    providers: Literal["auto"] | list[str] = "auto"
    """auto: CUDA where the installed build and a device offer it, else CPU. Or a list, the preferred one first: cpu, \
cuda, tensorrt, openvino, or any name that the installed build of ONNX Runtime knows."""
    provider_options: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Options by provider, as ONNX Runtime documents them."""
    intra_op_threads: int = Field(default=0, ge=0, le=1024)
    """Threads within one operator; 0 is the number of cores that this process may use, divided by the instances (1 on \
a GPU)."""
    inter_op_threads: int = Field(default=1, ge=1, le=1024)
    """Operators that may run side by side; above 1 the graph is run in parallel mode."""
    allow_spinning: bool = False
    """Let idle threads of ONNX Runtime spin: a little less latency for a whole core each."""
    warmup: bool = True
    """Run the model on made-up inputs before it is ready."""


class TensorOverride(_Section):
    """What a model file does not tell of one input or output."""

    batch_axis: int | None = Field(default=None, ge=0)
    """The dimension that counts rows; null for a tensor that a whole batch shares."""
    warmup_shape: list[int] | None = None
    """Inputs only: the shape to warm up with, batch dimension included, where the open dimensions may not be 1."""


class ModelSettings(_Section):
    """Settings of one model: the server's, with those of its model.yaml over them."""

    queue: QueueSettings = QueueSettings()
    batching: BatchingSettings = BatchingSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    inputs: dict[str, TensorOverride] = Field(default_factory=dict)
    """By name of the input."""
    outputs: dict[str, TensorOverride] = Field(default_factory=dict)
    """By name of the output."""


class ApiSettings(_Section):
    """How answers look to callers."""

    overload_status: Literal["RESOURCE_EXHAUSTED", "UNAVAILABLE"] = "RESOURCE_EXHAUSTED"
    """Status of refused requests; UNAVAILABLE is what Triton's clients know."""


class Settings(_Section):
    """Everything that can be set."""

    models: list[Path] = Field(default_factory=list)
    """Model files, directories with one, or repositories. Empty: the built-in demo model."""
    server: ServerSettings = ServerSettings()
    log: LogSettings = LogSettings()
    api: ApiSettings = ApiSettings()
    queue: QueueSettings = QueueSettings()
    batching: BatchingSettings = BatchingSettings()
    runtime: RuntimeSettings = RuntimeSettings()

    def for_model(self, overrides: dict[str, Any]) -> ModelSettings:
        """Merge the contents of a model.yaml over the sections that apply to every model."""
        raise NotImplementedError

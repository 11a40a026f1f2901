"""Every setting there is, with its unit, default and bounds. Validated once, frozen ever after."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from ipaddress import IPv6Address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, field_validator, model_validator

from inferd.config.connections import ConnectionSettings
from inferd.config.logging import LogSettings
from inferd.config.loopback import is_unix_socket
from inferd.config.merging import merge
from inferd.config.section import Section, refusal
from inferd.config.security import SecuritySettings
from inferd.config.tracing import TracingSettings
from inferd.config.validation import Problem, SettingsError, validate

Port = Annotated[int, Field(ge=0, le=65535)]
_MIB = 1024 * 1024
_LOOPBACK = "127.0.0.1"
#: What the system takes, without the zero at the end.
_LONGEST_SOCKET_BYTES = 107


class ServerSettings(Section):
    """Ports, limits and the way to stop."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address to listen on. The default is reachable from this machine only; 0.0.0.0 or [::] is every interface. \
unix:PATH or unix-abstract:NAME is a Unix socket, for gRPC only."""
    grpc_port: Port = 8001
    """Port of the gRPC server; 0 takes a free one. Not used where host is a Unix socket."""
    http_host: str | None = Field(default=None, min_length=1)
    """Address of the HTTP port. Without it, that of host, or 127.0.0.1 where host is a Unix socket."""
    http_port: Port = 8002
    """Port of /metrics, /livez and /readyz; 0 takes a free one."""
    max_message_bytes: int = Field(default=64 * _MIB, ge=1024, le=2**31 - 1)
    """Largest request message that is accepted. Answers may be of any size; clients have limits of their own."""
    message_timeout_s: float = Field(default=60.0, gt=0.0, le=86400.0)
    """How long the message of a unary call may take to arrive. Callers without credentials, where those are asked \
for, have 5 s."""
    compressed_requests: bool = False
    """Take messages that are compressed with gzip; one may inflate to max_message_bytes, and to 100 times its own \
size."""
    memory_budget_bytes: int | None = Field(default=None, ge=16 * _MIB)
    """How much the process may grow by requests: received, queued, run and answered. Beyond it calls are refused, and \
those whose message is not complete are ended. Without it, half of the memory that the models leave free."""
    max_concurrent_streams: int = Field(default=128, ge=1, le=2**31 - 1)
    """Calls that one connection may have open at a time; HTTP/2 holds the others back at the client."""
    max_metadata_bytes: int = Field(default=16 * 1024, ge=1024, le=2**20)
    """Largest metadata that a call may bring, counted as HTTP/2 does: names, values, and 32 bytes for each."""
    connections: ConnectionSettings = ConnectionSettings()
    """Connections of the gRPC port."""
    armed_calls: int = Field(default=128, ge=1, le=4096)
    """Calls that the core may hand over before the server has looked at the last one."""
    max_inflight_requests: int = Field(default=8192, ge=1)
    """Unary calls that may be open at once over all models; further ones are refused before they are read."""
    blocking_threads: int = Field(default=4, ge=1, le=256)
    """Threads of each service whose handlers may block: health watches and channelz."""
    reflection: bool = True
    """Offer server reflection, which grpcurl needs."""
    channelz: bool = False
    """Offer channelz, the debugging service of gRPC's own library."""
    load_reports: bool = False
    """Send a load report (ORCA, endpoint-load-metrics-bin) with the status of every call, for load balancers that \
weigh by utilisation. Callers may also ask for one by the metadata endpoint-load-metrics-format: bin."""
    ready_max_lag_s: float = Field(default=5.0, ge=0.5, le=3600.0)
    """How far the thread that serves all calls may be behind before /readyz and health say that the server gets no \
more calls."""
    live_max_lag_s: float = Field(default=30.0, ge=0.5, le=3600.0)
    """How far it may be behind before /livez and the health of "liveness" say that the process is to be started \
anew."""
    drain_delay_s: float = Field(default=0.0, ge=0.0, le=600.0)
    """How long to go on serving after a stop signal with health already NOT_SERVING, so that load balancers notice."""
    drain_grace_s: float = Field(default=25.0, ge=0.0, le=3600.0)
    """How long admitted requests may take to finish before they are cancelled."""

    @field_validator("host")
    @classmethod
    def _host_is_an_address(cls, host: str) -> str:
        return _socket(host) if is_unix_socket(host) else _before_a_port(host)

    @field_validator("http_host")
    @classmethod
    def _http_host_goes_before_a_port(cls, host: str | None) -> str | None:
        return None if host is None else _before_a_port(host)

    @property
    def grpc_address(self) -> str:
        """Where to listen for gRPC."""
        return self.host if is_unix_socket(self.host) else f"{self.host}:{self.grpc_port}"

    @property
    def http_listens_on(self) -> str:
        """The host of the HTTP port."""
        if self.http_host is not None:
            return self.http_host
        return _LOOPBACK if is_unix_socket(self.host) else self.host

    @model_validator(mode="after")
    def _late_comes_before_stuck(self) -> Self:
        if self.live_max_lag_s < self.ready_max_lag_s:
            text = f"expected at least ready_max_lag_s, which is {self.ready_max_lag_s:g}, got {self.live_max_lag_s:g}"
            raise refusal(text, setting="live_max_lag_s")
        return self

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        if self.grpc_port == self.http_port != 0 and not is_unix_socket(self.host):
            text = f"expected another port than grpc_port, got {self.http_port} for both"
            raise refusal(text, setting="http_port")
        return self


def _before_a_port(host: str) -> str:
    if ":" in host:
        return f"[{_ipv6(host)}]"
    if any(character.isspace() or character in "/[]" for character in host):
        text = f"expected a host name or an IP address, got {host!r}"
        raise refusal(text)
    return host


def _socket(address: str) -> str:
    """Return the address of a Unix socket as it is written with one slash."""
    scheme, _, name = address.partition(":")
    if scheme == "unix" and name.startswith("//"):
        name = name[2:]
        if not name.startswith("/"):
            text = f"expected unix:PATH, or unix:// and an absolute path, got {address!r}"
            raise refusal(text)
    # These mean something in an address of gRPC; a name could have them only in another spelling.
    if not name or not name.isprintable() or any(character in "%?#" for character in name):
        text = f"expected the name of a Unix socket without %, ? and #, got {address!r}"
        raise refusal(text)
    if len(name.encode()) > _LONGEST_SOCKET_BYTES:
        text = f"expected the name of a Unix socket of at most {_LONGEST_SOCKET_BYTES} bytes, got {address!r}"
        raise refusal(text)
    return f"{scheme}:{name}"


def _ipv6(host: str) -> IPv6Address:
    try:
        return IPv6Address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        text = f"expected a host name or an IP address, without scheme or port, got {host!r}"
        raise refusal(text) from None


class Backpressure(StrEnum):
    """What happens to a request when the queue is full."""

    REJECT = "reject"
    CALLER_RUNS = "caller_runs"
    BLOCK = "block"
    SHED_OLDEST = "shed_oldest"


class QueueSettings(Section):
    """The bounded queue of each model version."""

    policy: Backpressure = Backpressure.REJECT
    """What happens when the queue is full: reject, caller_runs, block or shed_oldest."""
    max_rows: int = Field(default=8192, ge=1, le=1_000_000)
    """Rows that may wait, at most."""
    max_delay_ms: float = Field(default=250.0, ge=0.0)
    """How long a request may have to wait, judged by how fast the queue has been draining: it counts as full earlier \
than at max_rows, but never below two batches for each instance. 0 leaves it to max_rows."""
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
    def _default_priority_is_a_level(self) -> Self:
        if self.default_priority > self.priority_levels:
            text = f"expected at most priority_levels, which is {self.priority_levels}, got {self.default_priority}"
            raise refusal(text, setting="default_priority")
        return self


class BatchingSettings(Section):
    """How requests to a model are put together."""

    enabled: bool = True
    """Stack rows of several requests where the model allows it. Off: each request runs alone."""
    max_batch_size: int = Field(default=64, ge=1, le=65536)
    """Rows of a batch, at most."""
    max_wait_ms: float = Field(default=10.0, ge=0.0, le=60_000.0)
    """How long an incomplete batch may be held for further rows that are to be expected; never longer than running \
them together saves, as far as that is known from the runs so far."""
    instances: int = Field(default=1, ge=1, le=64)
    """Batches of the model that may run at the same time. Idle instances share what waits if that is done sooner, and \
each has cores for its threads."""
    check_share: float = Field(default=0.01, ge=0.0, le=1.0)
    """Part of the model's run time spent on running a member of a batch again alone, to see that it gets the same \
answer; 0 for never. A difference stops batching for that version."""


class RuntimeSettings(Section):
    """How ONNX Runtime runs a model."""

    providers: Literal["auto"] | Annotated[list[str], Field(min_length=1)] = "auto"
    """auto: CUDA where the installed build and a device offer it, else CPU. Or a list, the preferred one first: cpu, \
cuda, tensorrt, openvino, or any name that the installed build of ONNX Runtime knows."""
    provider_options: dict[str, dict[str, Annotated[str, Field(coerce_numbers_to_str=True)]]] = Field(
        default_factory=dict
    )
    """Options by provider, as ONNX Runtime documents them."""
    intra_op_threads: int = Field(default=0, ge=0, le=1024)
    """Threads within one operator; 0 is the number of cores that this process may use, divided by the instances (1 on \
a GPU)."""
    inter_op_threads: int = Field(default=1, ge=1, le=1024)
    """Operators that may run side by side; above 1 the graph is run in parallel mode."""
    allow_spinning: bool = False
    """Let idle threads of ONNX Runtime spin: a little less latency for a whole core each."""
    max_run_ms: float = Field(default=60_000.0, ge=1.0, le=86_400_000.0)
    """How long one run of the model may take. One that takes longer is ended, and its callers get DEADLINE_EXCEEDED \
at once; so is one that nobody waits for any more."""
    custom_ops: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    """Libraries of custom operators: paths, relative ones from the working directory, or onnxruntime-extensions for \
the library of that Python package, which must be installed. It is code that runs inside the server. A model.yaml may \
name only libraries that the server's own settings list, written the same way."""
    warmup: bool = True
    """Run the model in growing batches before it is ready. Whether it can be batched is tried in any case."""
    verdict_cache: Path | None = Path("~/.cache/inferd/verdicts")
    """Where it is kept which models have been proven to batch, so that a restart need not prove it again; null for \
nowhere. A folder that cannot be written is done without."""


class TensorOverride(Section):
    """What a model file does not tell of one input or output."""

    batch_axis: int | None = Field(default=None, ge=0)
    """The dimension that counts rows; null for a tensor that a whole batch shares."""
    warmup_shape: list[NonNegativeInt] | None = None
    """Inputs only: the shape to try and warm up with, batch dimension included, where the model does not run on any."""
    example: Any = None
    """Inputs only: a value that the model takes, as nested lists, to try and warm up with; one row or several where \
it has a batch axis."""


def _check_batches_fit(queue: QueueSettings, batching: BatchingSettings) -> None:
    if batching.enabled and batching.max_batch_size > queue.max_rows:
        text = f"expected at most queue.max_rows, which is {queue.max_rows}, got {batching.max_batch_size}"
        raise refusal(text, setting="batching.max_batch_size")
    if 0 < queue.default_timeout_ms <= batching.max_wait_ms:
        timeout_ms = queue.default_timeout_ms
        text = f"expected less than queue.default_timeout_ms, which is {timeout_ms}, got {batching.max_wait_ms}"
        raise refusal(text, setting="batching.max_wait_ms")


class ModelSettings(Section):
    """Settings of one model: the server's, with those of its model.yaml over them."""

    queue: QueueSettings = QueueSettings()
    batching: BatchingSettings = BatchingSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    inputs: dict[str, TensorOverride] = Field(default_factory=dict)
    """By name of the input."""
    outputs: dict[str, TensorOverride] = Field(default_factory=dict)
    """By name of the output."""
    loose_dimensions: list[str] = Field(default_factory=list)
    """Names of open dimensions that stand for several lengths in this model: inputs need not agree on them."""

    @model_validator(mode="after")
    def _batches_fit(self) -> Self:
        _check_batches_fit(self.queue, self.batching)
        return self


class ApiSettings(Section):
    """How answers look to callers."""

    overload_status: Literal["RESOURCE_EXHAUSTED", "UNAVAILABLE"] = "RESOURCE_EXHAUSTED"
    """Status of refused requests; UNAVAILABLE is what Triton's clients know."""
    max_message_requests: int = Field(default=1024, ge=1, le=1_000_000)
    """Requests that one message of StreamInfer may hold."""
    max_elements: int = Field(default=1_000_000, ge=1, le=2**31 - 1)
    """Elements that the typed lists of a request may hold together, and those that a BYTES tensor may; the raw bytes \
of other tensors are bounded by server.max_message_bytes only."""


class Settings(Section):
    """Everything that can be set."""

    models: list[Path] = Field(default_factory=list)
    """Model files, directories with one, or repositories. Empty: the built-in demo model."""
    server: ServerSettings = ServerSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()
    api: ApiSettings = ApiSettings()
    security: SecuritySettings = SecuritySettings()
    queue: QueueSettings = QueueSettings()
    batching: BatchingSettings = BatchingSettings()
    runtime: RuntimeSettings = RuntimeSettings()

    @model_validator(mode="after")
    def _batches_fit(self) -> Self:
        _check_batches_fit(self.queue, self.batching)
        return self

    def for_model(self, overrides: Mapping[str, Any]) -> ModelSettings:
        """Merge the contents of a model.yaml over the sections that apply to every model.

        Raises `SettingsError` naming each setting in ``overrides`` that is unknown or out of its bounds, and libraries
        of custom operators that these settings do not list: whoever can write models could run code by them.
        """
        shared = self.model_dump(include={"queue", "batching", "runtime"})
        merged = merge({**shared, "inputs": {}, "outputs": {}}, overrides)
        settings = validate(ModelSettings, merged, origin_of=lambda _: "model.yaml")
        self._require_listed(settings.runtime.custom_ops)
        return settings

    def _require_listed(self, custom_ops: Sequence[str]) -> None:
        # By their text: what is the same file now may be another one when it is loaded, if others may write its folder.
        foreign = [library for library in custom_ops if library not in self.runtime.custom_ops]
        if foreign:
            text = f"expected only libraries that the server's own settings list as well, got {', '.join(foreign)}"
            raise SettingsError([Problem(name="runtime.custom_ops", text=text, origin="model.yaml")])

"""Settings of the server: addresses, limits, connections and shutdown."""

from collections.abc import Iterator
from ipaddress import IPv6Address
from itertools import combinations
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from inferd.addresses import is_unix_socket
from inferd.config.section import Section, validation_error

Port = Annotated[int, Field(ge=0, le=65535)]
_MIB = 1024 * 1024
_LOOPBACK = "127.0.0.1"
#: The kernel's limit for the path of a Unix socket, without the terminating zero.
_MAX_SOCKET_NAME_BYTES = 107


class ConnectionSettings(Section):
    """Connections of the gRPC port: their number, lifetime and keepalive; max_age_s is for HTTP too."""

    max_open: int = Field(default=4096, ge=1, le=1_000_000)
    """Maximum number of open connections, those still in the handshake included; further ones are closed at once."""
    handshake_timeout_s: float = Field(default=10.0, ge=0.1, le=600.0)
    """Time allowed for the TLS and HTTP/2 handshake of a new connection before it is closed."""
    max_idle_s: float = Field(default=0.0, ge=0.0, le=1_000_000.0)
    """Close connections without a call for this long. Clients reconnect on their own, but a call that starts at that \
moment may fail with UNAVAILABLE. 0 disables it."""
    max_age_s: float = Field(default=0.0, ge=0.0, le=1_000_000.0)
    """Ask clients to reconnect after this time, with a random variation of 10 %, so that load balancers can spread \
connections and certificates are verified again; HTTP connections are closed after their next answer. 0 disables it."""
    max_age_grace_s: float = Field(default=300.0, ge=0.1, le=1_000_000.0)
    """Time that calls, streams included, may continue after max_age_s before they are cancelled."""
    keepalive_s: float = Field(default=120.0, ge=1.0, le=1_000_000.0)
    """Ping clients that have been silent for this long, and close the connection if there is no reply within 20 s. \
Keep it below the idle timeout of load balancers, which is usually 240 s or more."""
    min_ping_interval_s: float = Field(default=5.0, ge=0.0, le=1_000_000.0)
    """Minimum interval between a client's keepalive pings, with and without calls. The default leaves enough margin \
for clients that ping every 10 s, even if some pings are delayed."""
    max_ping_strikes: int = Field(default=2, ge=0, le=1_000_000)
    """Number of pings below the minimum interval that are tolerated before the connection is closed; 0 is unlimited."""


class HttpSettings(Section):
    """Inference over HTTP, on server.http_port."""

    host: str | None = Field(default=None, min_length=1)
    """Address of http_port. Defaults to server.host; if that is a Unix socket, HTTP is off unless this is set."""
    max_connections: int = Field(default=4096, ge=1, le=1_000_000)
    """Maximum number of open connections. Above it, the connection that has been idle longest is closed for a new \
one; if none is idle, the new one is closed."""
    keep_alive_s: float = Field(default=75.0, ge=0.0, le=86_400.0)
    """Close connections without a request for this long. Keep it above the idle timeout of proxies in front, which is \
usually 60 s. 0 closes each connection after its answer."""
    header_timeout_s: float = Field(default=10.0, ge=0.1, le=600.0)
    """Time allowed for the TLS handshake, and for the first line and headers of a request once it has begun."""
    cors_origins: list[str] = Field(default_factory=list)
    """Origins of other websites whose scripts may call this server, such as https://app.example.com; * is every one, \
without credentials of the browser. Also the origins of proxies that reach the server on loopback. None by default."""
    status_page: bool = True
    """Serve the status page at /."""

    @field_validator("host")
    @classmethod
    def _validate_host(cls, host: str | None) -> str | None:
        return None if host is None else _bracketed_host(host)

    @field_validator("cors_origins")
    @classmethod
    def _validate_origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if origin != "*" and not _is_origin(origin):
                text = f"expected *, or http(s)://HOST[:PORT] in lower case and without a path, got {origin!r}"
                raise validation_error(text)
        return origins


class ServerSettings(Section):
    """Ports, limits and shutdown."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address to listen on. The default accepts connections from this machine only; 0.0.0.0 or [::] is all \
interfaces. unix:PATH or unix-abstract:NAME is a Unix socket, for gRPC only; HTTP is off then, unless http.host is \
set."""
    grpc_port: Port = 8001
    """Port of the gRPC server; 0 picks a free one. Ignored if host is a Unix socket."""
    http_port: Port | None = 8000
    """Port of inference over HTTP and of the status page; 0 picks a free one, none switches it off."""
    http: HttpSettings = HttpSettings()
    """Inference over HTTP."""
    metrics_host: str | None = Field(default=None, min_length=1)
    """Address of the metrics port. Defaults to host, or to 127.0.0.1 if host is a Unix socket."""
    metrics_port: Port = 8002
    """Port of /metrics, /livez and /readyz; 0 picks a free one."""
    max_message_bytes: int = Field(default=64 * _MIB, ge=1024, le=2**31 - 1)
    """Largest accepted request message. Responses may have any size, over gRPC up to 2 GiB; clients set their own \
limit for these."""
    message_timeout_s: float = Field(default=60.0, gt=0.0, le=86400.0)
    """Time allowed for receiving the message of a unary call. Where authentication is on, unauthenticated calls have \
5 s."""
    compressed_requests: bool = False
    """Accept messages compressed with gzip or deflate. A message may decompress to at most max_message_bytes and 100 \
times its own size."""
    memory_budget_bytes: int | None = Field(default=None, ge=16 * _MIB)
    """Memory that requests may add to the process: received, queued, running and answered. Above it, new calls are \
rejected and calls whose message is incomplete are ended. Defaults to half of the memory left after the models are \
loaded."""
    max_concurrent_streams: int = Field(default=128, ge=1, le=2**31 - 1)
    """Maximum number of open calls per connection; HTTP/2 makes the client wait with further ones."""
    max_metadata_bytes: int = Field(default=16 * 1024, ge=1024, le=2**20)
    """Largest accepted metadata of a call, counted as in HTTP/2: names, values, and 32 bytes for each."""
    connections: ConnectionSettings = ConnectionSettings()
    """Connections of the gRPC port."""
    armed_calls: int = Field(default=128, ge=1, le=4096)
    """Number of calls that gRPC may accept ahead of the server's processing; more while calls are rejected for \
overload, when those that came last are read first (docs/overload.md)."""
    max_inflight_requests: int = Field(default=8192, ge=1)
    """Maximum number of open unary calls across all models; further ones are rejected before their message is read."""
    blocking_threads: int = Field(default=4, ge=1, le=256)
    """Threads for each service with blocking handlers: health watches and channelz."""
    triton_metrics: bool = False
    """Add Triton's metrics (nv_inference_…) to /metrics, for dashboards and autoscalers that were made for Triton."""
    reflection: bool = True
    """Enable server reflection, which grpcurl needs."""
    channelz: bool = False
    """Enable channelz, gRPC's debugging service."""
    load_reports: bool = False
    """Send an ORCA load report (endpoint-load-metrics-bin) with the status of every call, for load balancers that \
weigh by utilization. Callers can also request one with the metadata endpoint-load-metrics-format: bin."""
    ready_max_lag_s: float = Field(default=5.0, ge=0.5, le=3600.0)
    """Lag of the thread that serves all calls above which /readyz and the health service report not ready."""
    live_max_lag_s: float = Field(default=30.0, ge=0.5, le=3600.0)
    """Lag of the same thread above which /livez and the health of "liveness" fail, so that the process is restarted."""
    drain_delay_s: float = Field(default=0.0, ge=0.0, le=600.0)
    """Time to keep serving after a stop signal while health reports NOT_SERVING, so that load balancers notice."""
    drain_grace_s: float = Field(default=25.0, ge=0.0, le=3600.0)
    """Time allowed for admitted requests to finish before they are cancelled."""

    @property
    def grpc_address(self) -> str:
        """The address to listen on for gRPC."""
        return self.host if is_unix_socket(self.host) else f"{self.host}:{self.grpc_port}"

    @property
    def http_host(self) -> str | None:
        """The host to listen on for inference over HTTP; None if it is off."""
        if self.http_port is None:
            return None
        if self.http.host is not None:
            return self.http.host
        return None if is_unix_socket(self.host) else self.host

    @property
    def monitoring_host(self) -> str:
        """The host to listen on for metrics and probes."""
        if self.metrics_host is not None:
            return self.metrics_host
        return _LOOPBACK if is_unix_socket(self.host) else self.host

    @field_validator("host")
    @classmethod
    def _validate_host(cls, host: str) -> str:
        return _socket_address(host) if is_unix_socket(host) else _bracketed_host(host)

    @field_validator("http_port", mode="before")
    @classmethod
    def _read_none(cls, port: object) -> object:
        # Flags and variables have no null.
        return None if isinstance(port, str) and port.lower() == "none" else port

    @field_validator("metrics_host")
    @classmethod
    def _validate_metrics_host(cls, host: str | None) -> str | None:
        return None if host is None else _bracketed_host(host)

    @model_validator(mode="after")
    def _validate_lags(self) -> Self:
        if self.live_max_lag_s < self.ready_max_lag_s:
            text = f"expected at least ready_max_lag_s, which is {self.ready_max_lag_s:g}, got {self.live_max_lag_s:g}"
            raise validation_error(text, setting="live_max_lag_s")
        return self

    @model_validator(mode="after")
    def _validate_ports(self) -> Self:
        for (other, taken), (name, port) in combinations(self._ports(), 2):
            if port == taken != 0:
                text = f"expected another port than {other}, got {port} for both"
                raise validation_error(text, setting=name)
        return self

    def _ports(self) -> Iterator[tuple[str, int]]:
        """Yield the ports that are used, by their setting."""
        if not is_unix_socket(self.host):
            yield "grpc_port", self.grpc_port
        if self.http_port is not None and self.http_host is not None:
            yield "http_port", self.http_port
        yield "metrics_port", self.metrics_port


def _is_origin(origin: str) -> bool:
    """Whether ``origin`` is as browsers send it: scheme, host and perhaps a port."""
    try:
        parts = urlsplit(origin)
        has_port = parts.port is not None
    except ValueError:
        return False
    host = parts.netloc.rpartition(":")[0] if has_port else parts.netloc
    is_bare = origin == f"{parts.scheme}://{parts.netloc}".lower()
    return parts.scheme in ("http", "https") and bool(host) and "@" not in host and is_bare


def _bracketed_host(host: str) -> str:
    """Return ``host`` with the brackets that an IPv6 address needs before a port. Raises if it is no host."""
    if ":" in host:
        return f"[{_ipv6(host)}]"
    if any(character.isspace() or character in "/[]" for character in host):
        text = f"expected a host name or an IP address, got {host!r}"
        raise validation_error(text)
    return host


def _ipv6(host: str) -> IPv6Address:
    try:
        return IPv6Address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        text = f"expected a host name or an IP address, without scheme or port, got {host!r}"
        raise validation_error(text) from None


def _socket_address(address: str) -> str:
    """Return the address of a Unix socket, with the slashes of ``unix://`` removed. Raises if it is invalid."""
    scheme, _, name = address.partition(":")
    if scheme == "unix" and name.startswith("//"):
        name = name[2:]
        if not name.startswith("/"):
            text = f"expected unix:PATH, or unix:// and an absolute path, got {address!r}"
            raise validation_error(text)
    # gRPC decodes percent-encoding and cuts addresses at ? and #.
    if not name or not name.isprintable() or any(character in "%?#" for character in name):
        text = f"expected the name of a Unix socket without %, ? and #, got {address!r}"
        raise validation_error(text)
    if len(name.encode()) > _MAX_SOCKET_NAME_BYTES:
        text = f"expected the name of a Unix socket of at most {_MAX_SOCKET_NAME_BYTES} bytes, got {address!r}"
        raise validation_error(text)
    return f"{scheme}:{name}"

"""The flags of tritonserver that ``inferd serve`` takes by the same names, and what to use in place of the others."""

from collections.abc import Sequence

from inferd.cli.failures import UsageError

_TRUE, _FALSE = frozenset({"true", "1", "on"}), frozenset({"false", "0", "off"})

_SET = "use --set {}"
_NO_PLATFORM = "inferd has no interface of that platform; it serves the Open Inference Protocol (--http-port)"
_GRPC = "inferd's settings of gRPC are in server and server.connections"
_ONE_RUNTIME = "inferd runs every model in ONNX Runtime; its options are in runtime of a model.yaml"
_LOG = "use --log-format, and --set log.level=LEVEL or log.levels for parts of the server"
_TLS = "use --set security.tls.cert_file=FILE, key_file and client_ca_file, see docs/security.md"
_TRACES = "use --set tracing.endpoint=URL, see docs/tracing.md"
_RULES = "use the rules of security.policy_file, see docs/security.md"
_NO_CACHE = "inferd caches no responses"
_NO_MEMORY_POOL = "inferd has no pool of that memory; limits of GPU memory are in runtime.provider_options"

#: What to use in place of a flag. A name that ends with ``*`` stands for all that begin like it.
_INSTEAD = {
    "--model-store": "use --model-repository",
    "--grpc-address": "use --host",
    "--http-address": _SET.format("server.http.host=ADDRESS"),
    "--metrics-address": _SET.format("server.metrics_host=ADDRESS"),
    "--exit-timeout-secs": _SET.format("server.drain_grace_s=SECONDS"),
    "--model-load-thread-count": _SET.format("repository.parallel_loads=N"),
    "--model-load-retry-count": "a failed load is not retried by itself; load the model again",
    "--strict-model-config": "what config.pbtxt leaves out is always taken from the model's file",
    "--disable-auto-complete-config": "what config.pbtxt leaves out is always taken from the model's file",
    "--model-namespacing": "names of models are unique across repositories; --model NAME=PATH gives one another name",
    "--allow-http": "HTTP is on; --http-port none switches it off",
    "--allow-grpc": "gRPC is always on",
    "--allow-metrics": "metrics are always on; --metrics-port is their port",
    "--allow-gpu-metrics": "metrics of GPUs are there if the machine has some",
    "--allow-cpu-metrics": "process_cpu_seconds_total and process_resident_memory_bytes are always there",
    "--metrics-interval-ms": "metrics are read at each scrape",
    "--metrics-config": "--set server.triton_metrics=true adds Triton's metrics",
    "--grpc-use-ssl*": _TLS,
    "--grpc-server-cert": _TLS,
    "--grpc-server-key": _TLS,
    "--grpc-root-cert": _TLS,
    "--grpc-keepalive-time": _SET.format("server.connections.keepalive_s=SECONDS"),
    "--grpc-keepalive-timeout": "a client has 20 s to answer a ping of server.connections.keepalive_s",
    "--grpc-keepalive-permit-without-calls": "clients may ping without calls",
    "--grpc-http2-min-recv-ping-interval-without-data": _SET.format("server.connections.min_ping_interval_s=SECONDS"),
    "--grpc-http2-max-ping-strikes": _SET.format("server.connections.max_ping_strikes=N"),
    "--grpc-http2-max-pings-without-data": "the number of pings is not limited",
    "--grpc-max-connection-age": _SET.format("server.connections.max_age_s=SECONDS"),
    "--grpc-max-connection-age-grace": _SET.format("server.connections.max_age_grace_s=SECONDS"),
    "--grpc-restricted-protocol": _RULES,
    "--grpc-infer-response-compression-level": "responses are not compressed",
    "--grpc-infer-thread-count": "one thread reads all calls",
    "--grpc-infer-allocation-pool-size": _GRPC,
    "--grpc-max-response-pool-size": _GRPC,
    "--grpc-header-forward-pattern": "models do not see the metadata of calls",
    "--reuse-grpc-port": "a port has one server",
    "--http-restricted-api": _RULES,
    "--http-header-forward-pattern": "models do not see the headers of requests",
    "--http-max-input-size": _SET.format("server.max_message_bytes=BYTES"),
    "--http-thread-count": "one thread reads all requests",
    "--reuse-http-port": "a port has one server",
    "--allow-sagemaker": _NO_PLATFORM,
    "--sagemaker-*": _NO_PLATFORM,
    "--allow-vertex-ai": _NO_PLATFORM,
    "--vertex-ai-*": _NO_PLATFORM,
    "--backend-directory": _ONE_RUNTIME,
    "--backend-config": _ONE_RUNTIME,
    "--host-policy": _ONE_RUNTIME,
    "--min-supported-compute-capability": _ONE_RUNTIME,
    "--repoagent-directory": "inferd has no repository agents",
    "--log-verbose": _LOG,
    "--log-info": _LOG,
    "--log-warning": _LOG,
    "--log-error": _LOG,
    "--log-file": "the log goes to standard output; " + _LOG,
    "--id": "a log and its metrics are known by the address they come from",
    "--trace-*": _TRACES,
    "--cache-config": _NO_CACHE,
    "--cache-directory": _NO_CACHE,
    "--response-cache-byte-size": _NO_CACHE,
    "--pinned-memory-pool-byte-size": _NO_MEMORY_POOL,
    "--cuda-memory-pool-byte-size": _NO_MEMORY_POOL,
    "--cuda-virtual-address-size": _NO_MEMORY_POOL,
    "--model-load-gpu-limit": _NO_MEMORY_POOL,
    "--enable-peer-access": _NO_MEMORY_POOL,
    "--buffer-manager-thread-count": "inferd copies rows in the batch workers (batching.instances)",
    "--rate-limit*": "quotas of callers are in security.policy_file; instances of a model are in batching.instances",
}


def reject_flags(arguments: Sequence[str]) -> None:
    """Raise `CommandError` if ``arguments`` have a flag of tritonserver that inferd lacks; it says what to use."""
    for argument in arguments:
        if argument == "--":
            return
        name = argument.partition("=")[0]
        instead = _INSTEAD.get(name) or _of_prefix(name)
        if instead is not None:
            raise UsageError(f"{name} is tritonserver's: {instead}")


def parse_bool(flag: str, value: str | None) -> bool | None:
    """Return what tritonserver reads ``value`` as; None if the flag is not given. Raises `CommandError`."""
    if value is None:
        return None
    lowered = value.lower()
    if lowered not in _TRUE | _FALSE:
        raise UsageError(f"{flag}: expected true or false, got {value!r}")
    return lowered in _TRUE


def _of_prefix(name: str) -> str | None:
    prefixes = (prefix for prefix in _INSTEAD if prefix.endswith("*") and name.startswith(prefix[:-1]))
    longest = max(prefixes, key=len, default=None)
    return None if longest is None else _INSTEAD[longest]

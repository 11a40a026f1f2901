"""The operations of the REST form: their names, as in metrics, logs and rules, and their paths."""

from collections.abc import Mapping

SERVER_METADATA = "GET /v2"
SERVER_LIVE = "GET /v2/health/live"
SERVER_READY = "GET /v2/health/ready"
MODELS = "GET /v2/models"
ALL_STATISTICS = "GET /v2/models/stats"
MODEL_METADATA = "GET /v2/models/{model}"
MODEL_READY = "GET /v2/models/{model}/ready"
MODEL_CONFIG = "GET /v2/models/{model}/config"
MODEL_STATISTICS = "GET /v2/models/{model}/stats"
INFER = "POST /v2/models/{model}/infer"
GENERATE = "POST /v2/models/{model}/generate"
GENERATE_STREAM = "POST /v2/models/{model}/generate_stream"
INDEX = "POST /v2/repository/index"
LOAD = "POST /v2/repository/models/{model}/load"
UNLOAD = "POST /v2/repository/models/{model}/unload"
OPENAPI = "GET /openapi.json"

#: Operations on a model, whose name a version or a label may follow.
_OF_VERSIONS = (
    *(MODEL_METADATA, MODEL_READY, MODEL_CONFIG, MODEL_STATISTICS),
    *(INFER, GENERATE, GENERATE_STREAM),
)

_OTHERS = (SERVER_METADATA, SERVER_LIVE, SERVER_READY, MODELS, ALL_STATISTICS, INDEX, LOAD, UNLOAD, OPENAPI)

_MODEL = "/v2/models/{model}"


def _paths(operation: str) -> tuple[str, ...]:
    path = operation.partition(" ")[2]
    if operation not in _OF_VERSIONS:
        return (path,)
    return path, path.replace(_MODEL, f"{_MODEL}/versions/{{version}}")


#: The templates of the paths of each operation.
PATHS: Mapping[str, tuple[str, ...]] = {each: _paths(each) for each in (*_OTHERS, *_OF_VERSIONS)}

_MEMORY = "inferd has no shared memory with its callers: send tensors in the body, in binary form for speed"
_TRACE = "inferd's traces are set up by its own settings, tracing.*"
_LOGGING = "inferd's log is set up by its own settings, log.*, and SIGHUP reads them again"

#: Operations of Triton that inferd does not have, with the text for callers.
ABSENT: Mapping[str, str] = {
    **{
        f"/v2/{kind}sharedmemory{path}": _MEMORY
        for kind in ("system", "cuda")
        for path in (
            *("/status", "/register", "/unregister"),
            *(f"/region/{{region}}/{action}" for action in ("status", "register", "unregister")),
        )
    },
    "/v2/trace/setting": _TRACE,
    f"{_MODEL}/trace/setting": _TRACE,
    "/v2/logging": _LOGGING,
}

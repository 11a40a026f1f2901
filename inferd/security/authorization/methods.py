"""The kind of each method, which rules refer to. A test fails for a method that is served and not listed here.

Methods of HTTP are verbs and paths, with parameters in place of names.
"""

from enum import StrEnum


class MethodKind(StrEnum):
    """What a rule allows; HEALTH, REFLECTION and NOTHING need no rule, and PAGE not even a credential."""

    INFER = "infer"
    METADATA = "metadata"
    ADMIN = "admin"
    HEALTH = "health"
    REFLECTION = "reflection"
    PAGE = "page"
    NOTHING = "nothing"


_OWN = "/inferd.v1.InferenceService"
_GENERATION = "/inferd.v1.GenerationService"
_OPEN_INFERENCE = "/inference.GRPCInferenceService"
_MODEL = "/v2/models/{model}"
_REPOSITORY = "/v2/repository"
_PAGE_MODEL = "/page/models/{model}"
_CHANNELZ = "/grpc.channelz.v1.Channelz"
_REFLECTION = (
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)

#: Over HTTP; their answers may come bit by bit.
_GENERATING = (
    f"POST {_MODEL}/generate",
    f"POST {_MODEL}/generate_stream",
    "POST /v1/completions",
    "POST /v1/chat/completions",
)

_KINDS = {
    MethodKind.INFER: (
        f"{_OWN}/Infer",
        f"{_OWN}/StreamInfer",
        f"{_GENERATION}/Generate",
        f"{_GENERATION}/Tokenize",
        f"{_OPEN_INFERENCE}/ModelInfer",
        f"{_OPEN_INFERENCE}/ModelStreamInfer",
        f"POST {_MODEL}/infer",
        *_GENERATING,
    ),
    MethodKind.METADATA: (
        f"{_OWN}/ListModels",
        f"{_OWN}/GetModel",
        f"{_OWN}/GetRouting",
        f"{_OPEN_INFERENCE}/ServerMetadata",
        f"{_OPEN_INFERENCE}/ModelReady",
        f"{_OPEN_INFERENCE}/ModelMetadata",
        f"{_OPEN_INFERENCE}/ModelConfig",
        f"{_OPEN_INFERENCE}/ModelStatistics",
        "GET /v2",
        "GET /v2/models",
        "GET /v2/models/stats",
        f"GET {_MODEL}",
        f"GET {_MODEL}/ready",
        f"GET {_MODEL}/config",
        f"GET {_MODEL}/stats",
        "GET /v1/models",
        "GET /v1/models/{model}",
        "GET /page/status",
        f"GET {_PAGE_MODEL}/history",
        f"GET {_PAGE_MODEL}/example",
    ),
    MethodKind.ADMIN: (
        f"{_OWN}/SetRouting",
        f"{_OWN}/LoadModel",
        f"{_OWN}/UnloadModel",
        f"{_OWN}/IndexModels",
        f"{_OPEN_INFERENCE}/RepositoryIndex",
        f"{_OPEN_INFERENCE}/RepositoryModelLoad",
        f"{_OPEN_INFERENCE}/RepositoryModelUnload",
        f"POST {_REPOSITORY}/index",
        f"POST {_REPOSITORY}/models/{{model}}/load",
        f"POST {_REPOSITORY}/models/{{model}}/unload",
        f"POST {_PAGE_MODEL}/labels",
        f"{_CHANNELZ}/GetTopChannels",
        f"{_CHANNELZ}/GetServers",
        f"{_CHANNELZ}/GetServer",
        f"{_CHANNELZ}/GetServerSockets",
        f"{_CHANNELZ}/GetChannel",
        f"{_CHANNELZ}/GetSubchannel",
        f"{_CHANNELZ}/GetSocket",
    ),
    MethodKind.HEALTH: (
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/List",
        "/grpc.health.v1.Health/Watch",
        f"{_OPEN_INFERENCE}/ServerLive",
        f"{_OPEN_INFERENCE}/ServerReady",
        "GET /v2/health/live",
        "GET /v2/health/ready",
    ),
    MethodKind.REFLECTION: (
        *_REFLECTION,
        "GET /openapi.json",
    ),
    # The files of the status page, which hold no data.
    MethodKind.PAGE: (
        "GET /",
        "GET /page/files/{file}",
    ),
    # Requests of HTTP that no operation serves: every caller with a credential gets that answer.
    MethodKind.NOTHING: ("unknown",),
}

_KIND_OF = {method: kind for kind, methods in _KINDS.items() for method in methods}

#: All methods whose kind is listed.
KNOWN_METHODS = frozenset(_KIND_OF)

#: Unary methods, which end soon by themselves. Any other method may stay open for as long as its caller likes.
UNARY_METHODS = KNOWN_METHODS - {
    f"{_OWN}/StreamInfer",
    f"{_GENERATION}/Generate",
    f"{_OPEN_INFERENCE}/ModelStreamInfer",
    *_GENERATING,
    "/grpc.health.v1.Health/Watch",
    *_REFLECTION,
}


def methods_of(kind: MethodKind) -> frozenset[str]:
    """Return the methods of ``kind``."""
    return frozenset(_KINDS[kind])


def kind_of(method: str) -> MethodKind:
    """Return the kind of ``method``; ADMIN, the most restricted, if it is not listed."""
    return _KIND_OF.get(method, MethodKind.ADMIN)

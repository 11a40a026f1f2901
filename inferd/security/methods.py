"""What kind of method each one is, for rules and for what is open."""

from enum import StrEnum


class MethodKind(StrEnum):
    """What a rule allows; HEALTH and REFLECTION need no rule."""

    INFER = "infer"
    METADATA = "metadata"
    ADMIN = "admin"
    HEALTH = "health"
    REFLECTION = "reflection"


_OWN = "/inferd.v1.InferenceService"
_OPEN_INFERENCE = "/inference.GRPCInferenceService"

_KINDS = {
    MethodKind.INFER: (
        f"{_OWN}/Infer",
        f"{_OWN}/StreamInfer",
        f"{_OPEN_INFERENCE}/ModelInfer",
        f"{_OPEN_INFERENCE}/ModelStreamInfer",
    ),
    MethodKind.METADATA: (
        f"{_OWN}/ListModels",
        f"{_OWN}/GetModel",
        f"{_OPEN_INFERENCE}/ServerMetadata",
        f"{_OPEN_INFERENCE}/ModelReady",
        f"{_OPEN_INFERENCE}/ModelMetadata",
        f"{_OPEN_INFERENCE}/ModelConfig",
        f"{_OPEN_INFERENCE}/ModelStatistics",
    ),
    MethodKind.HEALTH: (
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/List",
        "/grpc.health.v1.Health/Watch",
        f"{_OPEN_INFERENCE}/ServerLive",
        f"{_OPEN_INFERENCE}/ServerReady",
    ),
    MethodKind.REFLECTION: (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ),
}

#: Methods of one request and one answer, which end by themselves soon enough. All others may last for as long as the
#: caller likes.
SHORT_METHODS = frozenset(method for methods in _KINDS.values() for method in methods) - {
    f"{_OWN}/StreamInfer",
    f"{_OPEN_INFERENCE}/ModelStreamInfer",
    "/grpc.health.v1.Health/Watch",
    *_KINDS[MethodKind.REFLECTION],
}

_KIND_OF = {method: kind for kind, methods in _KINDS.items() for method in methods}


def methods_of(kind: MethodKind) -> frozenset[str]:
    """Return the methods of ``kind`` that are known here."""
    return frozenset(_KINDS.get(kind, ()))


def kind_of(method: str) -> MethodKind:
    """Return the kind of ``method``, which is ``/package.Service/Name``. What is not known here is for admins."""
    return _KIND_OF.get(method, MethodKind.ADMIN)

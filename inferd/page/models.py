"""Describe models for the status page. Pure."""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

from inferd.api.admission import ModelView
from inferd.config.routing import RoutingSettings
from inferd.models.loaded import LanguageModel
from inferd.models.states import ModelState
from inferd.models.version import ModelVersion
from inferd.runtime.signature import TensorSpec
from inferd.security.authorization.methods import MethodKind

#: Longer lists of class names are left out: the form shows fewer scores.
_MOST_LABELS = 100


def described_models(view: ModelView, routing: Callable[[str], RoutingSettings]) -> list[dict[str, Any]]:
    """Return the models that the caller may see, by name, without values that change with each request."""
    return [
        _model(name, list(versions), view, routing(name))
        for name, versions in groupby(view.all(), key=lambda version: version.name)
    ]


def _model(name: str, versions: Sequence[ModelVersion], view: ModelView, routing: RoutingSettings) -> dict[str, Any]:
    return {
        "name": name,
        "versions": [_version(version) for version in versions],
        "labels": routing.labels,
        "weights": routing.weights,
        "shadow": None if routing.shadow is None else routing.shadow.version,
        "may_infer": view.allows(MethodKind.INFER, name),
        "may_control": view.allows(MethodKind.ADMIN, name),
    }


def _version(version: ModelVersion) -> dict[str, Any]:
    verdict, signature = version.verdict, version.signature
    return {
        "version": version.version,
        "state": version.state.value,
        "reason": version.reason,
        "on_demand": version.on_demand,
        "is_ready": version.state is ModelState.READY,
        "verdict": None if verdict is None else verdict.standing.value,
        "verdict_reason": "" if verdict is None else verdict.reason,
        "max_batch_size": version.max_batch_size,
        "providers": version.providers,
        "memory_bytes": version.memory_bytes,
        "device_memory_bytes": version.device_memory_bytes,
        "load_s": round(version.load_s, 3),
        "inputs": _tensors(() if signature is None else signature.inputs),
        "outputs": _tensors(() if signature is None else signature.outputs),
        "generation": None if version.language is None else _generation(version.language),
    }


def _generation(model: LanguageModel) -> dict[str, Any]:
    return {
        "context_length": model.limits.context_length,
        "max_sequences": model.decoder.slots,
        "cache_bytes": model.generator.cache_bytes,
        "has_tokenizer": model.has_tokenizer,
        "has_chat_template": model.has_chat_template,
    }


def _tensors(specs: Iterable[TensorSpec]) -> list[dict[str, Any]]:
    return [
        {
            "name": spec.name,
            "datatype": spec.datatype.name,
            # A number, the name of an open dimension, or null.
            "shape": spec.shape,
            "batch_axis": spec.batch_axis,
            "optional": spec.optional,
            "labels": spec.labels if len(spec.labels) <= _MOST_LABELS else (),
        }
        for spec in specs
    ]

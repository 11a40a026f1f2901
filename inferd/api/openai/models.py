"""List language models in the form of OpenAI's API."""

import time
from collections.abc import Iterator

from inferd.api.admission import ModelView
from inferd.api.generation.http_reply import Json
from inferd.api.json_messages import json_answer
from inferd.errors import ModelNotFoundError
from inferd.http.messages import HttpBody, HttpMessage
from inferd.models.registry import ModelRegistry
from inferd.models.version import ModelVersion


class OpenAiModels:
    """Answers queries about language models; other models do not exist here."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry
        self._created = int(time.time())

    def split_name(self, model: str) -> tuple[str, str]:
        """Split ``model``, which is NAME or NAME:VERSION_OR_LABEL; return an empty version for the former."""
        name, colon, version = model.rpartition(":")
        return (name, version) if colon and not self._registry.versions(model) else (model, "")

    def list(self, _: HttpMessage, view: ModelView) -> HttpBody:
        """Return the language models that accept requests."""
        return json_answer({"object": "list", "data": list(self._described(view))})

    def get(self, message: HttpMessage, view: ModelView) -> HttpBody:
        """Return one language model. Raises `ModelNotFoundError`, and `ColdModelError` if it must be loaded first."""
        model = message.path["model"]
        name, version = self.split_name(model)
        found = view.find(name, version)
        if not found.is_loaded:
            raise found.unavailable()
        if found.generation_limits is None:
            raise ModelNotFoundError(f'model "{found.name}" is no language model')
        return json_answer(self._model(model, found))

    def _described(self, view: ModelView) -> Iterator[Json]:
        seen = set()
        for version in view.all():
            is_usable = version.generation_limits is not None and version.accepts_requests
            if is_usable and version.name not in seen:
                seen.add(version.name)
                yield self._model(version.name, version)

    def _model(self, name: str, version: ModelVersion) -> Json:
        limits = version.generation_limits
        assert limits is not None, "a language model"
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "inferd",
            "max_model_len": limits.context_length,
        }

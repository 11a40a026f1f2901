"""One version of a model: what it is, where it is in its life, and the way to its queue."""

from collections.abc import Sequence
from dataclasses import dataclass

from inferd.batching.batcher import Batcher
from inferd.batching.request import InferenceRequest
from inferd.config.settings import ModelSettings
from inferd.errors import ModelUnavailableError
from inferd.models.lifecycle import ModelState, require_transition
from inferd.runtime.batch_axes.verdict import Verdict
from inferd.runtime.session import OnnxSession
from inferd.runtime.signature import ModelSignature

__all__ = ["LoadedModel", "ModelState", "ModelVersion"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """What a version has once its file has been read: the session and the batcher that feeds it.

    ``memory_bytes`` is by how much the process grew meanwhile; memory that had been freed before may be used again.
    """

    session: OnnxSession
    batcher: Batcher
    memory_bytes: int


class ModelVersion:
    """One version of a model.

    Invariant: ``loaded`` is set before the state becomes READY and stays, so that whoever has seen READY may use it;
    requests that arrive after unloading began are refused by the batcher. ``settings`` are the server's until the
    loader has read the model's own, and do not change after that. `load`, `fail` and `unload` are called under the
    loader's lock; everything else may be called from any thread.
    """

    def __init__(self, *, name: str, version: str, settings: ModelSettings) -> None:
        self.name = name
        self.version = version
        self.settings = settings
        self._state = ModelState.LOADING
        self._reason = ""
        self._loaded: LoadedModel | None = None

    @property
    def state(self) -> ModelState:
        """Where the version is in its life."""
        return self._state

    @property
    def reason(self) -> str:
        """Why the state is FAILED, for an operator; empty otherwise."""
        return self._reason

    @property
    def signature(self) -> ModelSignature | None:
        """What the model takes and gives; None until it has been read."""
        return None if self._loaded is None else self._loaded.session.signature

    @property
    def batcher(self) -> Batcher | None:
        """The queue and its workers; None until the model has been read."""
        return None if self._loaded is None else self._loaded.batcher

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers in use, the preferred one first; empty until the model has been read."""
        return () if self._loaded is None else self._loaded.session.providers

    @property
    def verdict(self) -> Verdict | None:
        """Whether its requests may be batched, and why not; None until the model has been read."""
        return None if self._loaded is None else self._loaded.session.verdict

    @property
    def memory_bytes(self) -> int:
        """By how much the process grew as the model was loaded and warmed up; 0 until then."""
        return 0 if self._loaded is None else self._loaded.memory_bytes

    @property
    def max_batch_size(self) -> int:
        """Rows of a batch, at most: 1 for a model that does not batch, be it by nature or by its settings."""
        batches = (
            self.settings.batching.enabled and self._loaded is not None and self._loaded.session.signature.batchable
        )
        return self.settings.batching.max_batch_size if batches else 1

    def require_signature(self) -> ModelSignature:
        """Return what the model takes and gives. Raises `ModelUnavailableError` if it has not been read."""
        if self._loaded is None:
            raise self.unavailable()
        return self._loaded.session.signature

    def submit(self, requests: Sequence[InferenceRequest]) -> None:
        """Have ``requests`` answered through their replies; never blocks."""
        if self._loaded is not None:
            self._loaded.batcher.submit(requests)
            return
        for request in requests:
            request.reply.deliver(self.unavailable())

    def cancel(self, request: InferenceRequest) -> None:
        """Withdraw ``request``; nothing if it has been answered."""
        if self._loaded is None:
            request.reply.withdraw()
        else:
            self._loaded.batcher.cancel(request)

    def unavailable(self) -> ModelUnavailableError:
        """Return the error for a caller who wants what only a ready model can do."""
        state = "failed to load" if self._state is ModelState.FAILED else f"is {self._state.value}"
        return ModelUnavailableError(f'model "{self.name}" version "{self.version}" {state}')

    def load(self, loaded: LoadedModel) -> None:
        """Become READY with ``loaded``."""
        require_transition(self._state, ModelState.READY)
        self._loaded = loaded
        self._state = ModelState.READY

    def fail(self, reason: str) -> None:
        """Become FAILED."""
        require_transition(self._state, ModelState.FAILED)
        self._reason = reason
        self._state = ModelState.FAILED

    def unload(self) -> LoadedModel | None:
        """Become UNLOADING; return what there is to stop."""
        require_transition(self._state, ModelState.UNLOADING)
        self._state = ModelState.UNLOADING
        return self._loaded

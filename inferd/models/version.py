"""One version of a model: its state, its settings and, once loaded, its session and queue."""

from collections.abc import Sequence
from dataclasses import dataclass

from inferd.batching.batcher import Batcher
from inferd.batching.request import InferenceRequest
from inferd.config.settings import ModelSettings
from inferd.errors import ModelUnavailableError
from inferd.models.states import ModelState, require_transition
from inferd.runtime.batch_axes.verdict import Verdict
from inferd.runtime.session import OnnxSession
from inferd.runtime.signature import ModelSignature


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """The session of a loaded version and the batcher that feeds it.

    ``memory_bytes`` is the growth of the process during loading, which may reuse memory freed before.
    """

    session: OnnxSession
    batcher: Batcher
    memory_bytes: int


class ModelVersion:
    """One version of a model.

    Invariants: the session and batcher are set before the state becomes READY, and stay set, so that a thread that has
    seen READY may use them; the batcher rejects requests that arrive after unloading began. ``settings`` are the
    server's until the loader has read the model's own, and do not change after that. `advance` and the ``mark_``
    methods are called under the manager's lock; everything else may be called from any thread.
    """

    def __init__(self, *, name: str, version: str, settings: ModelSettings) -> None:
        self.name = name
        self.version = version
        self.settings = settings
        #: Every request reads it without a lock.
        self.state = ModelState.LOADING
        self._reason = ""
        self._loaded: LoadedModel | None = None

    @property
    def reason(self) -> str:
        """Why the state is FAILED or UNAVAILABLE, for an operator; empty otherwise."""
        return self._reason

    @property
    def signature(self) -> ModelSignature | None:
        """The inputs and outputs; None until loaded."""
        return None if self._loaded is None else self._loaded.session.signature

    @property
    def batcher(self) -> Batcher | None:
        """The queue and its workers; None until loaded."""
        return None if self._loaded is None else self._loaded.batcher

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers in use, in order of preference; empty until loaded."""
        return () if self._loaded is None else self._loaded.session.providers

    @property
    def verdict(self) -> Verdict | None:
        """Whether requests may be batched, and why not; None until loaded."""
        return None if self._loaded is None else self._loaded.session.verdict

    @property
    def memory_bytes(self) -> int:
        """Growth of the process while the model was loaded and warmed up; 0 until then."""
        return 0 if self._loaded is None else self._loaded.memory_bytes

    @property
    def max_batch_size(self) -> int:
        """Maximum number of rows per batch; 1 if the model or its settings do not allow batching."""
        batches = (
            self.settings.batching.enabled and self._loaded is not None and self._loaded.session.signature.batchable
        )
        return self.settings.batching.max_batch_size if batches else 1

    def require_signature(self) -> ModelSignature:
        """Return the inputs and outputs. Raises `ModelUnavailableError` if the model is not loaded."""
        if self._loaded is None:
            raise self.unavailable()
        return self._loaded.session.signature

    def submit(self, requests: Sequence[InferenceRequest]) -> None:
        """Enqueue ``requests``, which are answered through their replies. Never blocks."""
        if self._loaded is not None:
            self._loaded.batcher.queue.submit(requests)
            return
        for request in requests:
            request.reply.deliver(self.unavailable())

    def cancel(self, request: InferenceRequest) -> None:
        """Withdraw ``request``, unless it has been answered."""
        if self._loaded is None:
            request.reply.withdraw()
        else:
            self._loaded.batcher.queue.cancel(request)

    def unavailable(self) -> ModelUnavailableError:
        """Return the error for calls that need a ready model."""
        state = "failed to load" if self.state is ModelState.FAILED else f"is {self.state.value}"
        return ModelUnavailableError(f'model "{self.name}" version "{self.version}" {state}')

    def advance(self, state: ModelState) -> None:
        """Enter the next stage of a load: VERIFYING or WARMING."""
        require_transition(self.state, state)
        self.state = state

    def mark_ready(self, loaded: LoadedModel) -> None:
        """Become READY with ``loaded``."""
        require_transition(self.state, ModelState.READY)
        self._loaded = loaded
        self.state = ModelState.READY

    def mark_failed(self, reason: str) -> None:
        """Become FAILED."""
        require_transition(self.state, ModelState.FAILED)
        self._reason = reason
        self.state = ModelState.FAILED

    def mark_unavailable(self, reason: str) -> None:
        """Become UNAVAILABLE: unloaded, or a load that was cancelled."""
        require_transition(self.state, ModelState.UNAVAILABLE)
        self._reason = reason
        self.state = ModelState.UNAVAILABLE

    def mark_unloading(self) -> LoadedModel | None:
        """Become UNLOADING. Return what the caller has to stop and close."""
        require_transition(self.state, ModelState.UNLOADING)
        self.state = ModelState.UNLOADING
        return self._loaded

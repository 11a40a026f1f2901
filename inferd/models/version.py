"""One version of a model: its state, its settings and, once loaded, its session and queue."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from inferd.batching.batcher import Batcher
from inferd.batching.request import InferenceRequest
from inferd.config.settings import ModelSettings
from inferd.errors import ColdModelError, ModelUnavailableError
from inferd.models.load_meter import NOTHING_MEASURED, Measured
from inferd.models.residency import NO_MEMORY, Memory
from inferd.models.states import ModelState, require_transition
from inferd.runtime.batch_axes.synthetic_inputs import SyntheticInputs
from inferd.runtime.batch_axes.verdict import Verdict
from inferd.runtime.session import OnnxSession
from inferd.runtime.signature import ModelSignature


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """The session of a loaded version and the batcher that feeds it.

    ``memory`` is what it takes now, as far as that is known, and ``measured`` what this load took. ``least_peak`` is
    the least that its loads took at their peak, nothing if that is not known. ``files`` keeps those that came from
    remote storage in the cache.
    """

    session: OnnxSession
    batcher: Batcher
    memory: Memory = NO_MEMORY
    measured: Measured = NOTHING_MEASURED
    least_peak: Memory = NO_MEMORY
    loaded_at: float = 0.0
    files: object = None


class ModelVersion:
    """One version of a model.

    Invariants: the session and batcher are set before the state becomes READY, and stay set until the last request is
    answered, so that a request that has found the version READY may use them; others read them once and expect None.
    The batcher rejects requests that arrive after unloading began. ``settings`` are the
    server's until the loader has read the model's own, and do not change after that. `advance` and the ``mark_``
    methods are called under the manager's lock; everything else may be called from any thread.

    A new version is LOADING, or ON_DEMAND: then it stands for one that its first request loads.
    """

    def __init__(
        self,
        *,
        name: str,
        version: str,
        settings: ModelSettings,
        fingerprint: Hashable = None,
        on_demand: bool = False,
        state: ModelState = ModelState.LOADING,
    ) -> None:
        self.name = name
        self.version = version
        self.settings = settings
        #: Whether requests that find the version in another state than READY make the server load it.
        self.on_demand = on_demand
        #: Differs once the files are not those that the version was loaded from.
        self.fingerprint = fingerprint
        #: Every request reads it without a lock.
        self.state = state
        #: Copies requests to another version before they are submitted.
        self.shadow: Callable[[Sequence[InferenceRequest]], None] | None = None
        self._reason = ""
        self._loaded: LoadedModel | None = None

    @property
    def reason(self) -> str:
        """Why the version failed, is unavailable, runs nothing at present, or could not be loaded again; or empty.

        For an operator.
        """
        return self._why_broken or self._reason

    @property
    def accepts_requests(self) -> bool:
        """Whether requests are answered, now or once they have made the version load."""
        if self.state is ModelState.READY:
            return not self._why_broken
        return self.on_demand and self.state is not ModelState.FAILED

    @property
    def _why_broken(self) -> str:
        loaded = self._loaded
        return "" if loaded is None else loaded.batcher.why_broken

    @property
    def has_lost_device(self) -> bool:
        """Whether only a new process is likely to run the model again."""
        loaded = self._loaded
        return loaded is not None and loaded.batcher.is_hopeless

    @property
    def signature(self) -> ModelSignature | None:
        """The inputs and outputs; None until loaded."""
        loaded = self._loaded
        return None if loaded is None else loaded.session.signature

    @property
    def batcher(self) -> Batcher | None:
        """The queue and its workers; None until loaded."""
        loaded = self._loaded
        return None if loaded is None else loaded.batcher

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers in use, in order of preference; empty until loaded."""
        loaded = self._loaded
        return () if loaded is None else loaded.session.providers

    @property
    def verdict(self) -> Verdict | None:
        """Whether requests may be batched, and why not; None until loaded."""
        loaded = self._loaded
        return None if loaded is None else loaded.session.verdict

    @property
    def synthetic_inputs(self) -> SyntheticInputs | None:
        """Inputs on which the model is known to run; None if none were found, or until loaded."""
        loaded = self._loaded
        return None if loaded is None else loaded.session.synthetic_inputs

    @property
    def memory_bytes(self) -> int:
        """Memory that the loaded model takes after warm-up; 0 until it is loaded."""
        loaded = self._loaded
        return 0 if loaded is None else loaded.memory.host

    @property
    def device_memory_bytes(self) -> int:
        """The same of the devices that it runs on."""
        loaded = self._loaded
        return 0 if loaded is None else loaded.memory.device

    @property
    def load_s(self) -> float:
        """How long its load took; 0 until it is loaded."""
        loaded = self._loaded
        return 0.0 if loaded is None else loaded.measured.load_s

    @property
    def max_batch_size(self) -> int:
        """Maximum number of rows per batch at present; 1 if the model or its settings do not allow batching.

        Fewer than configured while the memory is not enough for more.
        """
        signature, loaded = self.signature, self._loaded
        if loaded is None or signature is None or not (self.settings.batching.enabled and signature.batchable):
            return 1
        return loaded.batcher.max_rows

    def require_signature(self) -> ModelSignature:
        """Return the inputs and outputs. Raises `ModelUnavailableError` if the model is not loaded."""
        loaded = self._loaded
        if loaded is None:
            raise self.unavailable()
        return loaded.session.signature

    def submit(self, requests: Sequence[InferenceRequest]) -> None:
        """Enqueue ``requests``, which are answered through their replies. Never blocks."""
        loaded = self._loaded
        if loaded is not None:
            if self.shadow is not None:
                self.shadow(requests)
            loaded.batcher.queue.submit(requests)
            return
        for request in requests:
            request.reply.deliver(self.unavailable())

    def cancel(self, request: InferenceRequest) -> None:
        """Withdraw ``request``, unless it has been answered."""
        loaded = self._loaded
        if loaded is None:
            request.reply.withdraw()
        else:
            loaded.batcher.queue.cancel(request)

    def unavailable(self) -> ModelUnavailableError:
        """Return the error for calls that need a ready model: a `ColdModelError` if they may wait for it."""
        state = "failed to load" if self.state is ModelState.FAILED else f"is {self.state.value.replace('_', ' ')}"
        text = f'model "{self.name}" version "{self.version}" {state}'
        if self.on_demand:
            return ColdModelError(text, model=self.name, version=self.version)
        return ModelUnavailableError(text)

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
        """Become UNAVAILABLE: unloaded, or a load that was cancelled. Lets go of the session and the queue."""
        require_transition(self.state, ModelState.UNAVAILABLE)
        self._reason = reason
        self._loaded = None
        self.state = ModelState.UNAVAILABLE

    def reload_failed(self, reason: str) -> None:
        """Keep why a newer form of this version could not be loaded; it goes on serving."""
        self._reason = f"loading it again failed: {reason}"

    def mark_unloading(self) -> LoadedModel:
        """Become UNLOADING. Return what the caller has to stop and close."""
        require_transition(self.state, ModelState.UNLOADING)
        assert self._loaded is not None, "READY is only reached with a loaded model"
        self.state = ModelState.UNLOADING
        return self._loaded

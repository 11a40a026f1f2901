"""One version of a model: its state, its settings and, once loaded, its engine."""

from collections.abc import Callable, Hashable, Sequence

from inferd.batching.batcher import Batcher
from inferd.batching.request import InferenceRequest
from inferd.config.settings import ModelSettings
from inferd.errors import ColdModelError, InvalidInputError, ModelUnavailableError, Retry
from inferd.generation.engine import GenerationEngine
from inferd.generation.text import ModelText
from inferd.models.loaded import GenerationLimits, LanguageModel, LoadedModel, LoadedVersion
from inferd.models.states import IN_PROGRESS, ModelState, require_transition
from inferd.runtime.batch_axes.synthetic_inputs import SyntheticInputs
from inferd.runtime.batch_axes.verdict import Verdict
from inferd.runtime.signature import ModelSignature

#: How long callers should wait for a model that is being loaded, which takes seconds; not gRPC's retries, as they may
#: find another server.
LOADING_RETRY_S = 1.0


class ModelVersion:
    """One version of a model.

    Invariants: the loaded model is set before the state becomes READY, and stays set until the last request is
    answered, so that a request that has found the version READY may use it; others read it once and expect None. Its
    engine rejects requests that arrive after unloading began. ``settings`` are the server's until the loader has read
    the model's own, and do not change after that. `advance` and the ``mark_`` methods are called under the manager's
    lock; everything else may be called from any thread.

    A new version is LOADING, or ON_DEMAND, which its first request loads.
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
        #: True if requests that find the version in another state than READY load it.
        self.on_demand = on_demand
        #: Differs once the files are not those that the version was loaded from.
        self.fingerprint = fingerprint
        #: Every request reads it without a lock.
        self.state = state
        #: Copies requests to another version before they are submitted.
        self.shadow: Callable[[Sequence[InferenceRequest]], None] | None = None
        self._reason = ""
        #: The loaded model, and the same again if it is an ordinary one: every request reads that.
        self._loaded: LoadedVersion | None = None
        self._model: LoadedModel | None = None

    @property
    def reason(self) -> str:
        """Reason why the version failed, is unavailable, cannot run, or could not be loaded again; empty if none.

        For operators.
        """
        return self._why_broken or self._reason

    @property
    def accepts_requests(self) -> bool:
        """True if requests are answered, now or after they have loaded the version."""
        if self.state is ModelState.READY:
            return not self._why_broken
        return self.on_demand and self.state is not ModelState.FAILED

    @property
    def _why_broken(self) -> str:
        loaded = self._loaded
        return "" if loaded is None else loaded.engine.why_broken

    @property
    def has_lost_device(self) -> bool:
        """True if only a new process is likely to run the model again."""
        loaded = self._loaded
        return loaded is not None and loaded.engine.is_hopeless

    @property
    def is_unfinished(self) -> bool:
        """True if requests are unanswered, or threads hang in a run."""
        loaded = self._loaded
        return loaded is not None and loaded.engine.unanswered_requests + loaded.engine.stuck_threads > 0

    @property
    def signature(self) -> ModelSignature | None:
        """The inputs and outputs; None until loaded, and for a language model."""
        model = self._model
        return None if model is None else model.session.signature

    @property
    def batcher(self) -> Batcher | None:
        """The queue and its workers; None until loaded, and for a language model."""
        model = self._model
        return None if model is None else model.batcher

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers in use, in order of preference; empty until loaded."""
        loaded = self._loaded
        return () if loaded is None else loaded.providers

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on batching requests, with its reason; None until loaded."""
        loaded = self._loaded
        return None if loaded is None else loaded.verdict

    @property
    def synthetic_inputs(self) -> SyntheticInputs | None:
        """Inputs on which the model is known to run; None if none were found, or until loaded."""
        model = self._model
        return None if model is None else model.session.synthetic_inputs

    @property
    def memory_bytes(self) -> int:
        """Memory that the loaded model takes after warm-up; 0 until it is loaded."""
        loaded = self._loaded
        return 0 if loaded is None else loaded.memory.host

    @property
    def device_memory_bytes(self) -> int:
        """Memory that it takes on devices; 0 until it is loaded."""
        loaded = self._loaded
        return 0 if loaded is None else loaded.memory.device

    @property
    def load_s(self) -> float:
        """Duration of its load; 0 until it is loaded."""
        loaded = self._loaded
        return 0.0 if loaded is None else loaded.measured.load_s

    @property
    def language(self) -> LanguageModel | None:
        """The language model; None until loaded, and for an ordinary model."""
        loaded = self._loaded
        return None if loaded is None else loaded.language

    @property
    def generator(self) -> GenerationEngine | None:
        """The engine of a language model; None until loaded, and for an ordinary model."""
        language = self.language
        return None if language is None else language.generator

    @property
    def text(self) -> ModelText | None:
        """The tokenizer of a language model, if it has one; None until loaded."""
        language = self.language
        return None if language is None else language.text

    @property
    def generation_limits(self) -> GenerationLimits | None:
        """The limits of a language model; None until loaded, and for an ordinary model."""
        language = self.language
        return None if language is None else language.limits

    @property
    def is_loaded(self) -> bool:
        """True if the model is in memory."""
        return self._loaded is not None

    @property
    def max_batch_size(self) -> int:
        """Maximum number of rows per batch at present; 1 if the model or its settings do not allow batching.

        Fewer than configured while the memory is not enough for more. For a language model, that of sequences.
        """
        loaded = self._loaded
        return 1 if loaded is None else loaded.max_batch_size(self.settings.batching)

    def require_signature(self) -> ModelSignature:
        """Return the inputs and outputs.

        Raises `ModelUnavailableError` if the model is not loaded, and `InvalidInputError` if it is a language model.
        """
        model = self._model
        if model is not None:
            return model.session.signature
        if self._loaded is None:
            raise self.unavailable()
        raise InvalidInputError(
            f'model "{self.name}" is a language model, which takes no tensors: call GenerationService.Generate, '
            "ModelStreamInfer with the input text_input, or over HTTP /v1/chat/completions or "
            f"/v2/models/{self.name}/generate",
            at="model",
        )

    def submit(self, requests: Sequence[InferenceRequest]) -> None:
        """Enqueue ``requests``, which are answered through their replies. Never blocks."""
        model = self._model
        if model is not None:
            if self.shadow is not None:
                self.shadow(requests)
            model.batcher.queue.submit(requests)
            return
        for request in requests:
            request.reply.deliver(self.unavailable())

    def cancel(self, request: InferenceRequest) -> None:
        """Withdraw ``request``, unless it has been answered."""
        model = self._model
        if model is None:
            request.reply.withdraw()
        else:
            model.batcher.queue.cancel(request)

    def unavailable(self) -> ModelUnavailableError:
        """Return the error for calls that need a ready model: a `ColdModelError` if they may wait for it."""
        state = "failed to load" if self.state is ModelState.FAILED else f"is {self.state.value.replace('_', ' ')}"
        text = f'model "{self.name}" version "{self.version}" {state}'
        if self.on_demand:
            return ColdModelError(text, model=self.name, version=self.version)
        if self.state in IN_PROGRESS:
            return ModelUnavailableError(text, retry_after_s=LOADING_RETRY_S, retry=Retry.SOON)
        return ModelUnavailableError(text)

    def advance(self, state: ModelState) -> None:
        """Enter the next stage of a load: VERIFYING or WARMING."""
        require_transition(self.state, state)
        self.state = state

    def mark_ready(self, loaded: LoadedVersion) -> None:
        """Become READY with ``loaded``."""
        require_transition(self.state, ModelState.READY)
        self._loaded = loaded
        self._model = loaded if isinstance(loaded, LoadedModel) else None
        self.state = ModelState.READY

    def mark_failed(self, reason: str) -> None:
        """Become FAILED."""
        require_transition(self.state, ModelState.FAILED)
        self._reason = reason
        self.state = ModelState.FAILED

    def mark_unavailable(self, reason: str) -> None:
        """Become UNAVAILABLE: unloaded, or cancelled while loading. Releases the session and the queue."""
        require_transition(self.state, ModelState.UNAVAILABLE)
        self._reason = reason
        self._loaded = self._model = None
        self.state = ModelState.UNAVAILABLE

    def reload_failed(self, reason: str) -> None:
        """Set the reason why newer files of this version could not be loaded; it continues to serve."""
        self._reason = f"loading it again failed: {reason}"

    def mark_unloading(self) -> LoadedVersion:
        """Become UNLOADING. Return what the caller has to stop and close."""
        require_transition(self.state, ModelState.UNLOADING)
        assert self._loaded is not None, "READY is only reached with a loaded model"
        self.state = ModelState.UNLOADING
        return self._loaded

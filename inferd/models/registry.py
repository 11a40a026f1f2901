"""Model versions with their states and queues, and the registry that finds the version for a request."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from inferd.batching.batcher import Batcher
from inferd.batching.request import InferenceRequest
from inferd.config.settings import ModelSettings
from inferd.errors import InvalidInputError, ModelNotFoundError, ModelUnavailableError
from inferd.plain_text import clipped, listed
from inferd.runtime.batch_axes.verdict import Verdict
from inferd.runtime.session import OnnxSession
from inferd.runtime.signature import ModelSignature

#: Whether the caller may see a model; called with names of existing models only.
Visible = Callable[[str], bool]


class ModelState(Enum):
    """State of a model version. Only READY accepts requests."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    UNLOADING = "unloading"


#: The states that may follow each state. FAILED and UNLOADING are final; loading again needs a new version object.
TRANSITIONS: Mapping[ModelState, frozenset[ModelState]] = {
    ModelState.LOADING: frozenset({ModelState.READY, ModelState.FAILED, ModelState.UNLOADING}),
    ModelState.READY: frozenset({ModelState.UNLOADING}),
    ModelState.FAILED: frozenset(),
    ModelState.UNLOADING: frozenset(),
}


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
    server's until the loader has read the model's own, and do not change after that. `mark_ready`, `mark_failed` and
    `mark_unloading` are called under the loader's lock; everything else may be called from any thread.
    """

    def __init__(self, *, name: str, version: str, settings: ModelSettings) -> None:
        self.name = name
        self.version = version
        self.settings = settings
        #: Every request reads it without a lock. Only `mark_ready`, `mark_failed` and `mark_unloading` change it.
        self.state = ModelState.LOADING
        self._reason = ""
        self._loaded: LoadedModel | None = None

    @property
    def reason(self) -> str:
        """Why the state is FAILED, for an operator; empty otherwise."""
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
            self._loaded.batcher.submit(requests)
            return
        for request in requests:
            request.reply.deliver(self.unavailable())

    def cancel(self, request: InferenceRequest) -> None:
        """Withdraw ``request``, unless it has been answered."""
        if self._loaded is None:
            request.reply.withdraw()
        else:
            self._loaded.batcher.cancel(request)

    def unavailable(self) -> ModelUnavailableError:
        """Return the error for calls that need a ready model."""
        state = "failed to load" if self.state is ModelState.FAILED else f"is {self.state.value}"
        return ModelUnavailableError(f'model "{self.name}" version "{self.version}" {state}')

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

    def mark_unloading(self) -> LoadedModel | None:
        """Become UNLOADING. Return what the caller has to stop and close."""
        require_transition(self.state, ModelState.UNLOADING)
        self.state = ModelState.UNLOADING
        return self._loaded


def require_transition(current: ModelState, following: ModelState) -> None:
    """Raise `ValueError` unless ``following`` may come after ``current``."""
    if following not in TRANSITIONS[current]:
        msg = f"a model that is {current.value} cannot become {following.value}"
        raise ValueError(msg)


class ModelRegistry:
    """All model versions of the server, in any state.

    Invariants: the mapping is immutable and replaced as a whole, so that reads take no lock; the versions of a model
    are sorted with the highest first. All methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._models: Mapping[str, tuple[ModelVersion, ...]] = MappingProxyType({})
        self._writing = threading.Lock()

    def add(self, version: ModelVersion) -> None:
        """Register ``version``. Raises `ValueError` if its name and version are registered already."""
        with self._writing:
            others = self._models.get(version.name, ())
            if any(other.version == version.version for other in others):
                msg = f'model "{version.name}" has a version "{version.version}" already'
                raise ValueError(msg)
            ordered = tuple(sorted((*others, version), key=lambda each: int(each.version), reverse=True))
            self._models = MappingProxyType({**self._models, version.name: ordered})

    def get(self, name: str, version: str = "") -> ModelVersion:
        """Return a version that is READY.

        Without ``version``, the highest one that is READY; without ``name``, the only model.

        Raises:
            InvalidInputError: there are several models, and no name is given.
            ModelNotFoundError: no such model or version.
            ModelUnavailableError: the version is not READY.
        """
        for each in self._models.get(name, ()):
            if (not version or each.version == version) and each.state is ModelState.READY:
                return each
        return self.ready(self.find(name, version))

    @staticmethod
    def ready(version: ModelVersion) -> ModelVersion:
        """Return ``version`` if it is READY, else raise `ModelUnavailableError`."""
        if version.state is not ModelState.READY:
            raise version.unavailable()
        return version

    def find(self, name: str, version: str = "", visible: Visible | None = None) -> ModelVersion:
        """Return the same as `get`, but in any state; without ``version``, the highest one if none is READY.

        Models that are not ``visible`` are treated as if they did not exist.
        """
        versions = self._models.get(name)
        if versions is None or (visible is not None and not visible(name)):
            versions = self._without_name(name, visible)
        for each in versions:
            if each.version == version or (not version and each.state is ModelState.READY):
                return each
        if not version:
            return versions[0]
        normal = _normalized(version)
        if normal != version:
            return self.find(name, normal, visible)
        have = listed(each.version for each in versions)
        raise ModelNotFoundError(f'model "{versions[0].name}" has no version "{clipped(version)}", it has {have}')

    def all(self) -> list[ModelVersion]:
        """Return all versions, ordered by name, then by version with the highest first."""
        return [version for _, versions in sorted(self._models.items()) for version in versions]

    def _without_name(self, name: str, visible: Visible | None) -> tuple[ModelVersion, ...]:
        if name:
            raise ModelNotFoundError(f'there is no model "{clipped(name)}"')
        models = self._models
        if visible is not None:
            models = {name: versions for name, versions in models.items() if visible(name)}
        if not models:
            raise ModelNotFoundError("there is no model")
        if len(models) > 1:
            raise InvalidInputError(f"model: expected one of {listed(sorted(models))}, got no name", at="model")
        return next(iter(models.values()))


def _normalized(version: str) -> str:
    """Return ``version`` without leading zeros, which Triton accepts too."""
    if version[:1] == "0" and version.isdecimal():
        return version.lstrip("0") or "0"
    return version

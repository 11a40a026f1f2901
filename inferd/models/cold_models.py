"""The on-demand models: what a demand loads, how long that takes, and when it is tried again after a failure."""

from collections.abc import Collection
from dataclasses import dataclass

from inferd.batching.ports import Clock
from inferd.errors import ModelUnavailableError, Retry
from inferd.models.catalog import Versions
from inferd.models.registry import ModelRegistry
from inferd.models.states import ModelState
from inferd.plain_text import clipped

#: Time after a failed load within which requests fail at once; doubles with each failure in a row.
_FIRST_BACKOFF_S = 1.0
_LONGEST_BACKOFF_S = 60.0


@dataclass(frozen=True, slots=True)
class _Failure:
    """The last load of a model has failed; requests do not begin another one before ``until``.

    ``is_partial``: of some of its versions only. That does not keep the others away when they are cold again.
    """

    backoff_s: float
    until: float
    is_partial: bool


class ColdModels:
    """What loads on demand start from, by model. Control thread only.

    ``sources`` of a model are those of the versions that a demand loads.
    """

    def __init__(self, registry: ModelRegistry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._sources: dict[str, Versions] = {}
        self._failures: dict[str, _Failure] = {}
        #: How long the last load of a model took, and when the one that goes on began. Other threads read them.
        self._load_s: dict[str, float] = {}
        self._began_at: dict[str, float] = {}

    def __contains__(self, name: str) -> bool:
        """Whether a model is loaded on demand."""
        return name in self._sources

    def know(self, name: str, versions: Versions, *, load_s: float) -> None:
        """Take note of what a demand for a model loads, and how long that is likely to take.

        Forgets failures, as the files may be others.
        """
        self._sources[name] = versions
        self._load_s[name] = load_s
        self._failures.pop(name, None)

    def forget(self, name: str, numbers: Collection[str] | None = None) -> None:
        """A demand does not load the model any more, or not those versions of it."""
        left = {} if numbers is None else {each: of for each, of in self.sources(name).items() if each not in numbers}
        self._failures.pop(name, None)
        if left:
            self._sources[name] = left
        else:
            self._sources.pop(name, None)

    def sources(self, name: str) -> Versions:
        """Return what a demand loads; empty for a model that is not loaded on demand."""
        return self._sources.get(name, {})

    def missing(self, name: str) -> Versions:
        """Return the sources of the versions that a demand has to load now."""
        return {number: each for number, each in self.sources(name).items() if not self._is_ready(name, number)}

    def expected_load_s(self, name: str) -> float:
        """Return how long a load will take, or the one that goes on still takes; 0 if nothing is known. Any thread."""
        began_at = self._began_at.get(name)
        expected_s = self._load_s.get(name, 0.0)
        return expected_s if began_at is None else max(0.0, began_at + expected_s - self._clock())

    def refusal(self, name: str) -> ModelUnavailableError | None:
        """Return the error of requests that come too soon after a failed load."""
        failure = self._failures.get(name)
        if failure is None or (failure.is_partial and not self._any_ready(name)):
            return None
        left_s = failure.until - self._clock()
        return self._error(name, left_s) if left_s > 0 else None

    def load_begins(self, name: str) -> None:
        """Take note that a demanded load begins."""
        self._began_at[name] = self._clock()

    def load_ended(self, name: str) -> ModelUnavailableError | None:
        """Take note that a load has ended. Returns the error of the requests that have waited, if none can go on."""
        began_at = self._began_at.pop(name, None)
        if not self.missing(name):
            if began_at is not None:
                self._load_s[name] = self._clock() - began_at
            self._failures.pop(name, None)
            return None
        last = self._failures.get(name)
        backoff_s = _FIRST_BACKOFF_S if last is None else min(2 * last.backoff_s, _LONGEST_BACKOFF_S)
        is_partial = self._any_ready(name)
        self._failures[name] = _Failure(backoff_s, self._clock() + backoff_s, is_partial)
        return None if is_partial else self._error(name, backoff_s)

    def _any_ready(self, name: str) -> bool:
        return any(self._is_ready(name, number) for number in self.sources(name))

    def _is_ready(self, name: str, number: str) -> bool:
        versions = self._registry.versions(name)
        return any(each.version == number and each.state is ModelState.READY for each in versions)

    def _error(self, name: str, retry_after_s: float) -> ModelUnavailableError:
        # Clients do not wait for so long on their own: the next load is likely to fail too.
        text = f'model "{clipped(name)}" failed to load'
        return ModelUnavailableError(text, retry_after_s=retry_after_s, retry=Retry.SOON)

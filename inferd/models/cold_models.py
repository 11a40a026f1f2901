"""Keep the sources of the on-demand models, their load times, and the backoff after a failed load."""

from collections.abc import Collection
from dataclasses import dataclass

from inferd.batching.ports import Clock
from inferd.errors import ModelUnavailableError, Retry
from inferd.models.catalog import Versions
from inferd.models.registry import ModelRegistry
from inferd.models.states import ModelState
from inferd.plain_text import clipped

#: Time after a failed load in which requests fail without another attempt; doubles with each failure in a row.
_FIRST_BACKOFF_S = 1.0
_LONGEST_BACKOFF_S = 60.0


@dataclass(frozen=True, slots=True)
class _Failure:
    """The last load of a model has failed; requests begin another one only after ``until``.

    ``is_partial``: only some versions failed. The others may then be loaded at any time.
    """

    backoff_s: float
    until: float
    is_partial: bool


class ColdModels:
    """The models that are loaded on demand: the sources of the versions to load, by model. Control thread only."""

    def __init__(self, registry: ModelRegistry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._sources: dict[str, Versions] = {}
        self._failures: dict[str, _Failure] = {}
        #: How long the last load of a model took, and when the one in progress began. Other threads read them.
        self._load_s: dict[str, float] = {}
        self._began_at: dict[str, float] = {}

    def __contains__(self, name: str) -> bool:
        """Return True if a model is loaded on demand."""
        return name in self._sources

    def set_sources(self, name: str, versions: Versions, *, load_s: float) -> None:
        """Set the versions of a model to load on demand, and how long that is likely to take.

        Ends the backoff after a failure, as the files may be others.
        """
        self._sources[name] = versions
        self._load_s[name] = load_s
        self._failures.pop(name, None)

    def remove(self, name: str, numbers: Collection[str] | None = None) -> None:
        """Stop loading a model on demand, or those versions of it."""
        left = {} if numbers is None else {each: of for each, of in self.sources(name).items() if each not in numbers}
        self._failures.pop(name, None)
        if left:
            self._sources[name] = left
        else:
            self._sources.pop(name, None)

    def sources(self, name: str) -> Versions:
        """Return the versions to load on demand; empty for a model that is not loaded on demand."""
        return self._sources.get(name, {})

    def missing(self, name: str) -> Versions:
        """Return the versions to load on demand that are not READY."""
        return {number: each for number, each in self.sources(name).items() if not self._is_ready(name, number)}

    def expected_load_s(self, name: str) -> float:
        """Return how long a load takes, or the one in progress still takes; 0 if unknown. Any thread."""
        began_at = self._began_at.get(name)
        expected_s = self._load_s.get(name, 0.0)
        return expected_s if began_at is None else max(0.0, began_at + expected_s - self._clock())

    def backoff_error(self, name: str) -> ModelUnavailableError | None:
        """Return the error for requests during the backoff after a failed load; None outside of it."""
        failure = self._failures.get(name)
        if failure is None or (failure.is_partial and not self._any_ready(name)):
            return None
        left_s = failure.until - self._clock()
        return self._error(name, left_s) if left_s > 0 else None

    def load_began(self, name: str) -> None:
        """Record the start of a load."""
        self._began_at[name] = self._clock()

    def load_ended(self, name: str) -> ModelUnavailableError | None:
        """Record the end of a load. Returns the error for the requests that wait, if no version is READY."""
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
        # Retry.SOON, as clients do not wait for that long on their own: the next load is likely to fail too.
        text = f'model "{clipped(name)}" failed to load'
        return ModelUnavailableError(text, retry_after_s=retry_after_s, retry=Retry.SOON)

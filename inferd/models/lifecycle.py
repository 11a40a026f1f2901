"""The states of a model version's life, and which may follow which."""

from collections.abc import Mapping
from enum import Enum


class ModelState(Enum):
    """Where a version is in its life. Only READY takes requests."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    UNLOADING = "unloading"


#: What may come after each state. FAILED and UNLOADING are ends: whoever tries again makes a new version object.
TRANSITIONS: Mapping[ModelState, frozenset[ModelState]] = {
    ModelState.LOADING: frozenset({ModelState.READY, ModelState.FAILED, ModelState.UNLOADING}),
    ModelState.READY: frozenset({ModelState.UNLOADING}),
    ModelState.FAILED: frozenset(),
    ModelState.UNLOADING: frozenset(),
}


def require_transition(current: ModelState, following: ModelState) -> None:
    """Raise `ValueError` unless ``following`` may come after ``current``."""
    if following not in TRANSITIONS[current]:
        msg = f"a model that is {current.value} cannot become {following.value}"
        raise ValueError(msg)

"""The states of a model version, and which may follow which."""

from collections.abc import Mapping
from enum import Enum


class ModelState(Enum):
    """State of a model version. Only READY runs requests; requests for an ON_DEMAND version load it, and wait."""

    ON_DEMAND = "on_demand"
    UNAVAILABLE = "unavailable"
    LOADING = "loading"
    VERIFYING = "verifying"
    WARMING = "warming"
    READY = "ready"
    UNLOADING = "unloading"
    FAILED = "failed"


#: The states that may follow each state. A load may fail or be cancelled in each stage. Loading again needs a new
#: version object, so nothing follows UNAVAILABLE, FAILED and ON_DEMAND.
TRANSITIONS: Mapping[ModelState, frozenset[ModelState]] = {
    ModelState.ON_DEMAND: frozenset(),
    ModelState.LOADING: frozenset({ModelState.VERIFYING, ModelState.FAILED, ModelState.UNAVAILABLE}),
    ModelState.VERIFYING: frozenset({ModelState.WARMING, ModelState.FAILED, ModelState.UNAVAILABLE}),
    ModelState.WARMING: frozenset({ModelState.READY, ModelState.FAILED, ModelState.UNAVAILABLE}),
    ModelState.READY: frozenset({ModelState.UNLOADING}),
    ModelState.UNLOADING: frozenset({ModelState.UNAVAILABLE}),
    ModelState.UNAVAILABLE: frozenset(),
    ModelState.FAILED: frozenset(),
}

#: The stages of a load.
IN_PROGRESS = frozenset({ModelState.LOADING, ModelState.VERIFYING, ModelState.WARMING})


def require_transition(current: ModelState, following: ModelState) -> None:
    """Raise `ValueError` unless ``following`` may come after ``current``."""
    if following not in TRANSITIONS[current]:
        msg = f"a model that is {current.value} cannot become {following.value}"
        raise ValueError(msg)

"""Choose the version for a request that gives no version number: by label, or by weight for a canary."""

import random
from collections.abc import Callable, Sequence

from inferd.config.routing import RoutingSettings
from inferd.errors import InvalidInputError
from inferd.models.states import ModelState
from inferd.models.version import ModelVersion
from inferd.plain_text import clipped, listed


class Routes:
    """The routing of one model. Immutable; the poll thread and others read it without a lock.

    ``draw`` returns a number from 0 to below 1 for each choice by weight.
    """

    def __init__(self, settings: RoutingSettings, draw: Callable[[], float] = random.random) -> None:
        self.settings = settings
        self._draw = draw
        self._weights = {settings.number(name): 0.0 for name in settings.weights}
        for name, weight in settings.weights.items():
            # A version may have a weight by its number and one by its label.
            self._weights[settings.number(name)] += weight

    @property
    def weights(self) -> dict[str, float]:
        """Weights by the number of the version."""
        return dict(self._weights)

    def choose(self, version: str, versions: Sequence[ModelVersion]) -> ModelVersion | None:
        """Return the READY one of ``versions`` for a request with ``version``, a label or empty.

        Returns None if there is no such label, there are no weights, or the chosen versions are not READY.
        """
        if version:
            number = self.settings.labels.get(version)
            return next((v for v in versions if v.version == number and v.state is ModelState.READY), None)
        if not self._weights:
            return None
        shares = [(self._weights.get(v.version, 0.0), v) for v in versions if v.state is ModelState.READY]
        left = self._draw() * sum(share for share, _ in shares)
        for share, each in shares:
            left -= share
            if left < 0:
                return each
        return None


def require_ready(settings: RoutingSettings, versions: Sequence[ModelVersion]) -> None:
    """Raise `InvalidInputError` if a label, weight or shadow of ``settings`` is for a version that is not READY."""
    ready = [each.version for each in versions if each.state is ModelState.READY]
    wanted = [(f"label {label}", number) for label, number in settings.labels.items()]
    wanted += [(f"weight of {name}", settings.number(name)) for name, weight in settings.weights.items() if weight]
    if settings.shadow is not None:
        wanted.append(("shadow", settings.number(settings.shadow.version)))
    for field, number in wanted:
        if number not in ready:
            known = listed(ready) or "none is"
            raise InvalidInputError(
                f"{clipped(field)}: expected a version that is ready ({known}), got {clipped(number)}"
            )

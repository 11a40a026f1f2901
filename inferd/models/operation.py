"""What is to be done with one model: loads and unloads, and who is told when they have ended."""

from collections.abc import Callable
from dataclasses import dataclass, field

from inferd.errors import ServingError
from inferd.models.catalog import OverriddenModel
from inferd.models.lifecycle import VersionLoad
from inferd.models.version import ModelVersion

#: Called once with the outcome of an operation, by the control thread.
OnDone = Callable[[ServingError | None], None]


@dataclass(eq=False, slots=True)
class Operation:
    """Something to be done with one model. Control thread only.

    ``begin`` starts loads and unloads, and counts them in ``pending``; ``end`` is called when they have ended.
    """

    name: str
    begin: Callable[["Operation"], None]
    end: Callable[["Operation"], ServingError | None]
    on_done: OnDone
    is_load: bool
    loads: list[VersionLoad] = field(default_factory=list)
    #: To be unloaded when all ``loads`` have succeeded; or what is being unloaded.
    leaving: list[ModelVersion] = field(default_factory=list)
    pending: int = 0
    overridden: OverriddenModel | None = None

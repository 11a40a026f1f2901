"""The attributes of requests that queues need, whatever the requests ask for."""

from typing import Generic, NamedTuple, Protocol, TypeVar

from inferd.errors import ServingError


class Principal(NamedTuple):
    """A caller, with its ``weight`` beside others of the model; ``name`` is empty without authentication."""

    name: str = ""
    weight: float = 1.0


class QueuedRequest(Protocol):
    """A request that can wait. ``rows`` is what it counts for in limits and shares; see `InferenceRequest`.

    The queue sets ``enqueued_at`` and ``edf_key``. Identity is what tells requests apart.
    """

    enqueued_at: float
    edf_key: tuple[float, int]

    @property
    def rows(self) -> int: ...  # noqa: D102  see above
    @property
    def nbytes(self) -> int: ...  # noqa: D102
    @property
    def priority(self) -> int: ...  # noqa: D102
    @property
    def principal(self) -> Principal: ...  # noqa: D102
    @property
    def deadline(self) -> float: ...  # noqa: D102


#: The requests of one kind of queue.
Queued = TypeVar("Queued", bound=QueuedRequest)


class QueueEffects(Generic[Queued]):
    """Actions to carry out after a change of a queue, without its lock.

    ``failed``: requests to answer with an error. ``timers_at``: times on the monotonic clock at which to check for
    expired requests.
    """

    __slots__ = ("failed", "timers_at")

    def __init__(self) -> None:
        self.failed: list[tuple[Queued, ServingError]] = []
        self.timers_at: list[float] = []

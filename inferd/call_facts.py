"""What is found out about a call on its way, for those who count, log and trace it."""

from typing import Protocol


class BatchTiming(Protocol):
    """Where a batch's time went; the same object for all of its requests."""

    @property
    def started_at(self) -> float:
        """When its first stage began."""
        ...

    @property
    def stack_s(self) -> float:
        """How long its rows were put together."""
        ...

    @property
    def run_s(self) -> float:
        """How long the model ran."""
        ...

    @property
    def rows(self) -> int:
        """Rows that ran together."""
        ...


class CallFacts:
    """What nearly every call has to tell; None is what is not known of it, or not yet.

    Attributes rather than entries of a dictionary, as they are written and read for each call. What only some calls
    have is among their annotations. ``queue_s`` is told before ``batch``, and so whoever reads a call that may not have
    ended reads ``batch`` first.
    """

    __slots__ = ("batch", "model", "permissions", "principal", "queue_s", "request_id", "rows", "version")

    def __init__(self) -> None:
        #: Printable ASCII of bounded length; see `inferd.request_id`.
        self.request_id: str | None = None
        #: Who calls.
        self.principal: str | None = None
        #: What the rules grant the caller, which is everything where there are no rules.
        self.permissions: object | None = None
        self.model: str | None = None
        self.version: str | None = None
        #: Of the call's own request, if it has a single one.
        self.rows: int | None = None
        #: How long the request waited, in seconds, and the batch that it ran in.
        self.queue_s: float | None = None
        self.batch: BatchTiming | None = None

"""Whether a client sends and receives fast enough. Pure."""


class Progress:
    """The amount of something at a time, to tell whether it grows fast enough."""

    __slots__ = ("_amount", "_since")

    def __init__(self) -> None:
        self._amount = 0
        self._since: float | None = None

    def reset(self) -> None:
        """Start again."""
        self._since = None

    def is_stalled(self, amount: int, now: float, per_s: float, within_s: float) -> bool:
        """Whether ``amount`` has grown by less than ``per_s`` a second for ``within_s`` seconds or longer."""
        if self._since is None or amount - self._amount >= per_s * (now - self._since):
            self._amount, self._since = amount, now
            return False
        return now - self._since >= within_s


class Incoming:
    """What a client sends: ``received`` bytes of a head or, if a request has begun, of its body.

    ``before`` has those of reads before these, which ended the last request; they ``may_hold_part`` of the next head.
    """

    __slots__ = ("before", "may_hold_part", "progress", "received")

    def __init__(self) -> None:
        self.received = 0
        self.before = 0
        self.may_hold_part = False
        #: Of a body.
        self.progress = Progress()

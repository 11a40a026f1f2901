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

"""Limits on what one connection may take, and how fast its client must send and read. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionLimits:
    """What one connection may take, in bytes and seconds.

    ``keep_alive_s`` is the time between two requests, ``header_timeout_s`` that for the head of one, and for the TLS
    handshake. ``body_timeout_s`` is the time for a body, which must also arrive at ``min_bytes_per_s``, measured over
    ``stall_s``; an answer must be read as fast. ``linger_s`` is how long a client may take to notice an error. A
    connection ends after about ``max_age_s``, unless that is 0.
    """

    max_connections: int = 4096
    keep_alive_s: float = 75.0
    max_age_s: float = 0.0
    header_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    min_bytes_per_s: float = 1024.0
    stall_s: float = 20.0
    linger_s: float = 2.0
    max_head_bytes: int = 16 * 1024
    max_line_bytes: int = 8190
    max_headers: int = 128
    #: Reads of what a client sends are at least this far apart; 0: as fast as it sends.
    gather_s: float = 0.0


class Progress:
    """Detects a byte count that stops growing at the required rate."""

    __slots__ = ("_amount", "_since")

    def __init__(self) -> None:
        self._amount = 0
        self._since: float | None = None

    def reset(self) -> None:
        """Start again."""
        self._since = None

    def is_stalled(self, amount: int, now: float, per_s: float, within_s: float) -> bool:
        """Return True if ``amount`` has grown by less than ``per_s`` a second for ``within_s`` seconds or longer."""
        if self._since is None or amount - self._amount >= per_s * (now - self._since):
            self._amount, self._since = amount, now
            return False
        return now - self._since >= within_s


class Incoming:
    """Bytes that a client has sent.

    ``received`` counts those of a head or, once a request has begun, of its body. ``before`` counts those of the reads
    that ended the previous request; with ``may_hold_part`` they may end with the beginning of the next head.
    """

    __slots__ = ("before", "may_hold_part", "progress", "received")

    def __init__(self) -> None:
        self.received = 0
        self.before = 0
        self.may_hold_part = False
        #: Of the body.
        self.progress = Progress()

"""Limits on connections."""

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

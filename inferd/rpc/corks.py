"""Sends the answers of a burst to one connection in few TCP packets, with the socket option ``TCP_CORK``.

gRPC's core writes each answer by itself: a system call, a TCP packet, a wake-up of the receiver. While a socket has
the option, the kernel collects the bytes that are written, and sends them when the option is removed.

The core does not reveal its sockets, so they are found among the descriptors of the process by the address of the
peer. Another thread of the core may close one at any time, and its number may be reused: then the option is set and
removed on another socket of the process, or on none, which is harmless.
"""

import ctypes
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path

#: Answers to one connection from which on two further system calls pay.
_MIN_ANSWERS = 2

#: With more descriptors, the search for sockets takes too long, and few connections have several answers in a burst.
_MAX_DESCRIPTORS = 1024

#: The search for sockets takes at most this share of the time, and runs at most this often.
_SEARCH_SHARE = 0.01
_SEARCH_INTERVAL_S = 0.1

#: Sets the option of a socket; returns False if there is no such socket.
SetCork = Callable[[int, bool], bool]
#: Finds the sockets of the process by peer, as the core writes it; None if it has too many descriptors.
FindSockets = Callable[[], Mapping[bytes, int] | None]


class Corks:
    """Corks the connections that a burst of answers goes to; on the poll thread only.

    ``_sockets`` has the descriptor of each peer that was found, None for one whose socket was not.
    """

    def __init__(
        self,
        *,
        set_cork: SetCork | None = None,
        find_sockets: FindSockets | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._set_cork = set_cork or _set_cork
        self._find_sockets = find_sockets or _find_sockets
        self._clock = clock
        self._sockets: dict[bytes, int | None] = {}
        self._search_at = -float("inf")

    @staticmethod
    def are_supported() -> bool:
        """Return whether this system has the option, and lists the descriptors of a process."""
        return sys.platform == "linux" and _DESCRIPTORS.is_dir()

    def put(self, peers: Iterable[bytes]) -> list[int]:
        """Cork the connections with several answers; ``peers`` has one address for each answer.

        Returns the descriptors to `remove` the option from.
        """
        answers: dict[bytes, int] = {}
        for peer in peers:
            answers[peer] = answers.get(peer, 0) + 1
        corked: list[int] = []
        unknown: list[bytes] = []
        for peer, count in answers.items():
            if count < _MIN_ANSWERS:
                continue
            if peer not in self._sockets:
                unknown.append(peer)
                continue
            descriptor = self._sockets[peer]
            if descriptor is not None and self._set_cork(descriptor, True):
                corked.append(descriptor)
        if unknown:
            self._search(unknown)
        return corked

    def remove(self, corked: Iterable[int]) -> None:
        """Remove the option, so that the connections send what they have."""
        for descriptor in corked:
            self._set_cork(descriptor, False)

    def _search(self, peers: Iterable[bytes]) -> None:
        """Find the sockets of ``peers`` for their next answers, unless the last search was just now."""
        begun_at = self._clock()
        if begun_at < self._search_at:
            return
        # Only those that are there, so that the peers of the past are forgotten.
        self._sockets = {**dict.fromkeys(peers), **(self._find_sockets() or {})}
        now = self._clock()
        self._search_at = now + max(_SEARCH_INTERVAL_S, (now - begun_at) / _SEARCH_SHARE)


_DESCRIPTORS = Path("/proc/self/fd")
_libc = ctypes.PyDLL(None)
_ON, _OFF = ctypes.c_int(1), ctypes.c_int(0)
_SIZE = ctypes.sizeof(_ON)
#: Linux's number, which `socket` has on Linux only.
_TCP_CORK = 3


def _set_cork(descriptor: int, is_on: bool) -> bool:
    # Not through a socket object, which would close the core's descriptor in the end.
    value = ctypes.byref(_ON if is_on else _OFF)
    found: int = _libc.setsockopt(descriptor, socket.IPPROTO_TCP, _TCP_CORK, value, _SIZE)
    return found == 0


def _find_sockets() -> Mapping[bytes, int] | None:
    try:
        names = [path.name for path in islice(_DESCRIPTORS.iterdir(), _MAX_DESCRIPTORS + 1)]
    except OSError:  # no descriptor is left to list them with
        return None
    if len(names) > _MAX_DESCRIPTORS:
        return None
    found: dict[bytes, int] = {}
    for descriptor in map(int, names):
        with suppress(OSError):  # it was closed, or is no socket, or one without a peer
            peer = _peer_of(descriptor)
            if peer is not None:
                found[peer] = descriptor
    return found


def _peer_of(descriptor: int) -> bytes | None:
    # A copy, because a socket object closes its descriptor.
    copy = os.dup(descriptor)
    try:
        connected = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
    with connected:
        if connected.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        return written_peer(*connected.getpeername()[:2])


def written_peer(host: str, port: int) -> bytes:
    """Return an address as the core writes a peer."""
    if ":" in host and not host.startswith("::ffff:"):
        return f"ipv6:%5B{host}%5D:{port}".encode()
    return f"ipv4:{host.removeprefix('::ffff:')}:{port}".encode()

"""Inflates messages that callers have compressed, where that is switched on.

gRPC's core inflates by itself whatever ends up below the limit of a message, on the thread that reads from the sockets:
62 KB become 61 MiB before Python has seen a byte. So it is told to leave messages as they are, and what begins like
gzip is inflated here. No message of protobuf begins so: its first byte would be a tag of a wire type that does not
exist. Whether a message was sent as compressed is not told by the core, and need not be known.
"""

import zlib
from collections.abc import Callable

from inferd.rpc.worker_pool import WorkerPool

GZIP = b"\x1f\x8b"

#: What is small is inflated at once, whatever its ratio: it takes less time than handing it to a thread.
_SMALL_BYTES = 64 * 1024

#: A message may inflate to as many times its own size; texts and sparse numbers reach about twenty.
_MOST_RATIO = 100

#: zlib's way to say that a header of gzip comes first.
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class InflateError(Exception):
    """What was sent cannot be inflated within the limits; the text says what was expected."""


class Inflater:
    """Inflates on the poll thread what is small, and the rest in a thread of its own.

    ``call_soon`` runs a callback on the poll thread. Threads: `inflate` the poll thread; `stop` any.
    """

    def __init__(self, max_message_bytes: int, call_soon: Callable[[Callable[[], None]], None]) -> None:
        self._max_message_bytes = max_message_bytes
        self._call_soon = call_soon
        self._pool = WorkerPool("inferd-rpc-inflate", threads=1)

    def stop(self, timeout_s: float) -> bool:
        """End the thread. Returns False if it is still at work after the timeout."""
        return self._pool.stop(timeout_s)

    def inflate(self, message: bytes, done: Callable[[bytes | InflateError], None]) -> None:
        """Give what ``message`` inflates to, or why it does not, to ``done``: at once, or later on the poll thread."""
        decompressor = zlib.decompressobj(_GZIP_WINDOW)
        try:
            begin = decompressor.decompress(message, _SMALL_BYTES)
        except zlib.error:
            done(InflateError("a message compressed with gzip"))
            return
        if decompressor.eof or len(begin) < _SMALL_BYTES:
            done(_whole(decompressor, begin))
            return
        most = min(self._max_message_bytes, max(_MOST_RATIO * len(message), _SMALL_BYTES))

        def inflate_rest() -> None:
            outcome = _rest(decompressor, begin, most)
            self._call_soon(lambda: done(outcome))

        self._pool.submit(inflate_rest)


def _rest(decompressor: "zlib._Decompress", begin: bytes, most: int) -> bytes | InflateError:
    """Inflate what is left, if it is ``most`` bytes with the ``begin``; the interpreter lock is free meanwhile."""
    if len(begin) > most:
        return _too_large(most)
    try:
        # One more than there may be tells those that are too large. 0 would be no limit at all.
        inflated = begin + decompressor.decompress(decompressor.unconsumed_tail, most - len(begin) + 1)
    except zlib.error:
        return InflateError("a message compressed with gzip")
    return _too_large(most) if len(inflated) > most else _whole(decompressor, inflated)


def _whole(decompressor: "zlib._Decompress", inflated: bytes) -> bytes | InflateError:
    if not decompressor.eof or decompressor.unused_data:
        return InflateError("exactly one whole member of gzip")
    return inflated


def _too_large(most: int) -> InflateError:
    return InflateError(f"a message that inflates to at most {most} bytes")

"""Inflates compressed messages within limits, if that is enabled.

gRPC's core would inflate any message that stays below the size limit, on the thread that reads the sockets: 62 KB
become 61 MiB before Python sees a byte. So the core leaves messages as they are, and those that begin like gzip or
deflate are inflated here, or rejected: the core would answer algorithms that it does not allow by itself, and report
these calls as cancelled by their callers. It does not expose whether a message was sent as compressed, but no request
begins like that: in protobuf these would be the tags of a field 3 with an invalid wire type, and of a field 15, which
no request has.
"""

import zlib
from collections.abc import Callable

from inferd.rpc.worker_pool import WorkerPool

#: The algorithms by the first two bytes of what they make. gRPC's core has the widest window in the header of deflate.
ALGORITHMS = {b"\x1f\x8b": "gzip", **{bytes((0x78, flags)): "deflate" for flags in (0x01, 0x5E, 0x9C, 0xDA)}}

#: Up to this size a message is inflated at once, whatever its ratio: handing it to a thread would take longer.
_SMALL_BYTES = 64 * 1024

#: Maximum ratio of inflated to compressed size; text and sparse numbers reach about 20.
_MAX_RATIO = 100

#: The algorithms by their names in gRPC and HTTP, with zlib's window sizes for their headers.
WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class InflateError(Exception):
    """The message cannot be inflated within the limits; the text is the expectation."""


class Inflater:
    """Inflates small messages on the poll thread, others in a thread of its own.

    ``call_soon`` runs a callback on the poll thread. Threads: `inflate` the poll thread; `stop` any.
    """

    def __init__(self, max_message_bytes: int, call_soon: Callable[[Callable[[], None]], None]) -> None:
        self._max_message_bytes = max_message_bytes
        self._call_soon = call_soon
        self._pool = WorkerPool("inferd-rpc-inflate", threads=1)

    def stop(self, timeout_s: float) -> bool:
        """End the thread. Returns False if it is still working after the timeout."""
        return self._pool.stop(timeout_s)

    def inflate(self, message: bytes | bytearray, done: Callable[[bytes | InflateError], None], algorithm: str) -> None:
        """Call ``done`` with the inflated ``message`` or an error: at once, or later on the poll thread.

        ``algorithm`` is one of `WINDOWS`.
        """
        decompressor = zlib.decompressobj(WINDOWS[algorithm])
        try:
            begin = decompressor.decompress(message, _SMALL_BYTES)
        except zlib.error:
            done(InflateError(f"a message compressed with {algorithm}"))
            return
        if decompressor.eof or len(begin) < _SMALL_BYTES:
            done(_whole(decompressor, begin, algorithm))
            return
        most = min(self._max_message_bytes, max(_MAX_RATIO * len(message), _SMALL_BYTES))

        def inflate_rest() -> None:
            outcome = _rest(decompressor, begin, most, algorithm)
            self._call_soon(lambda: done(outcome))

        self._pool.submit(inflate_rest)


def _rest(decompressor: "zlib._Decompress", begin: bytes, most: int, algorithm: str) -> bytes | InflateError:
    """Inflate the rest, to at most ``most`` bytes with ``begin``; releases the interpreter lock."""
    if len(begin) > most:
        return _too_large(most)
    try:
        # One byte above the limit detects messages that are too large; 0 would mean no limit.
        inflated = begin + decompressor.decompress(decompressor.unconsumed_tail, most - len(begin) + 1)
    except zlib.error:
        return InflateError(f"a message compressed with {algorithm}")
    return _too_large(most) if len(inflated) > most else _whole(decompressor, inflated, algorithm)


def _whole(decompressor: "zlib._Decompress", inflated: bytes, algorithm: str) -> bytes | InflateError:
    if not decompressor.eof or decompressor.unused_data:
        return InflateError(f"exactly one whole member of {algorithm}")
    return inflated


def _too_large(most: int) -> InflateError:
    return InflateError(f"a message that inflates to at most {most} bytes")

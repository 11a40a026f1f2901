"""A thread that decodes and encodes large messages, so that other calls do not wait for them."""

from collections.abc import Callable

from inferd.errors import OverloadedError
from inferd.rpc.worker_pool import WorkerPool
from inferd.runtime.resources import give_way

#: More would not be faster, because of the GIL.
_THREADS = 1
#: Requests that may wait to be decoded. The memory budget bounds their bytes.
_MAX_WAITING = 256
#: About the time to decode one.
_RETRY_AFTER_S = 0.05


class LargeMessages:
    """Decodes large requests and encodes large responses in its own thread.

    ``call_soon`` calls a function on the poll thread, which continues with a decoded request. Work done here may take
    long, but no step of it holds the GIL for more than some milliseconds. Any thread may call; `stop` once.
    """

    def __init__(self, call_soon: Callable[[Callable[[], None]], None]) -> None:
        # Other requests go first.
        self._pool = WorkerPool("inferd-large-messages", threads=_THREADS, prepare=give_way)
        self.call_soon = call_soon

    def stop(self, timeout_s: float) -> bool:
        """Finish the submitted work and end the thread. Return False if it is still busy after the timeout."""
        return self._pool.stop(timeout_s)

    def decode(self, work: Callable[[], None]) -> None:
        """Run ``work``, which decodes a unary request. Raises `OverloadedError` if too many wait."""
        if self._pool.waiting >= _MAX_WAITING:
            raise OverloadedError(
                f"{_MAX_WAITING} large requests are waiting to be decoded",
                retry_after_s=_RETRY_AFTER_S,
                reason="LARGE_MESSAGES",
            )
        self._pool.submit(work)

    def do(self, work: Callable[[], None]) -> None:
        """Run ``work`` whose amount is bounded elsewhere: a response, or a request of a stream message."""
        self._pool.submit(work)

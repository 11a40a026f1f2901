"""A thread for messages that take long to read or to write, so that no other call waits for them."""

from collections.abc import Callable

from inferd.batching.request import InferenceResult
from inferd.errors import OverloadedError
from inferd.rpc.worker_pool import WorkerPool

#: One after another: Python's interpreter lock would not let several go any faster.
_THREADS = 1
#: Requests that may wait to be read. Their bytes are bounded by the memory budget.
_MAX_WAITING = 256
#: About what reading one takes.
_RETRY_AFTER_S = 0.05

#: Outputs with more elements are written here, if each element takes a step of Python.
_MAX_QUICK_ELEMENTS = 4096


class LargeMessages:
    """Reads large requests and writes large answers in a thread of its own.

    ``call_soon`` has the poll thread go on with what was read. What is done here may take long, but none of its steps
    keeps Python's interpreter lock for more than some milliseconds. Any thread may call; `stop` once.
    """

    def __init__(self, call_soon: Callable[[Callable[[], None]], None]) -> None:
        self._pool = WorkerPool("inferd-large-messages", threads=_THREADS)
        self.call_soon = call_soon

    def stop(self, timeout_s: float) -> bool:
        """Finish what was asked for and end the thread. Returns False if it is still at work after the timeout."""
        return self._pool.stop(timeout_s)

    def read(self, work: Callable[[], None]) -> None:
        """Have a request of a unary call read by ``work``. Raises `OverloadedError` if too many wait for that."""
        if self._pool.waiting >= _MAX_WAITING:
            raise OverloadedError(
                f"{_MAX_WAITING} large requests wait to be read", retry_after_s=_RETRY_AFTER_S, reason="LARGE_MESSAGES"
            )
        self._pool.submit(work)

    def do(self, work: Callable[[], None]) -> None:
        """Have ``work`` done of which there is a bounded amount: an answer, or one message of a stream."""
        self._pool.submit(work)


def takes_long_to_write(result: InferenceResult, *, as_lists: bool) -> bool:
    """Whether an answer is to be written by `LargeMessages`."""
    for array in result.outputs.values():
        if array.size > _MAX_QUICK_ELEMENTS and (as_lists or array.dtype.hasobject):
            return True
    return False

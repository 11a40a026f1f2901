"""Threads for the runs of a job: who submits waits while there are enough."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class BoundedThreads:
    """``places`` threads named ``name``, and as many calls in them, and ``ready`` more. One thread submits."""

    def __init__(self, places: int, name: str, *, ready: int = 0) -> None:
        self.places = places
        self._free = threading.Semaphore(places + ready)
        self._threads = ThreadPoolExecutor(places, thread_name_prefix=name)

    def submit(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Begin a call; waits while as many as fit are running or ready."""
        self._free.acquire()
        result = self._threads.submit(call, *args, **kwargs)
        # Also when it is cancelled.
        result.add_done_callback(lambda _: self._free.release())
        return result

    def close(self) -> None:
        """Cancel the calls that have not begun, and wait for the others."""
        self._threads.shutdown(cancel_futures=True)

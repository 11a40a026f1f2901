"""A thread pool whose `submit` blocks while enough calls are queued."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class BoundedThreads:
    """``places`` threads named ``name``, with at most ``ready`` more calls queued. Threads: one for `submit`."""

    def __init__(self, places: int, name: str, *, ready: int = 0) -> None:
        self.places = places
        self._free = threading.Semaphore(places + ready)
        self._threads = ThreadPoolExecutor(places, thread_name_prefix=name)

    def submit(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Start a call; block while all places and the queue are full."""
        self._free.acquire()
        result = self._threads.submit(call, *args, **kwargs)
        # Called for cancelled calls too.
        result.add_done_callback(lambda _: self._free.release())
        return result

    def close(self) -> None:
        """Cancel the calls that are queued, and wait for those that run."""
        self._threads.shutdown(cancel_futures=True)

"""Waits in tests, with a timeout that is longer than any machine takes, so that it only ends a test that hangs."""

import threading
import time
from collections.abc import Callable

#: No outcome may depend on it. `timeout` in setup.cfg is longer, so that a test that hangs reports what it waits for.
PATIENCE_S = 120.0


def eventually(is_so: Callable[[], bool], what: str) -> None:
    """Wait until ``is_so``, for changes in another process without a notification."""
    pause = threading.Event()
    ends_at = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < ends_at, f"not within {PATIENCE_S} s: {what}"
        pause.wait(0.01)

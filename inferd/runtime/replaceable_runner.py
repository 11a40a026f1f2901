"""A runner that is released, replaced and closed while other threads run it."""

import threading
from collections.abc import Callable, Sequence

from inferd.runtime.errors import RunFailedError
from inferd.runtime.runners import Runner, RunStop
from inferd.runtime.signature import Array, Tensors


class ReplaceableRunner:
    """Holds the ``current`` runner, if there is one at present.

    Invariant: a run in progress holds a reference to its runner, so `release` and `close` do not free it. ``open_new``
    opens the file once more. Any thread may call.
    """

    def __init__(self, open_new: Callable[[], Runner], current: Runner | None = None) -> None:
        self.open_new = open_new
        self.current = current
        #: Held while the runner is replaced or released for good.
        self._lock = threading.Lock()
        self.is_closed = False

    def replace(self, runner: Runner) -> None:
        """Use ``runner`` from now on, unless this is closed."""
        with self._lock:
            if not self.is_closed:
                self.current = runner

    def release(self) -> None:
        """Free the runner's memory when no run is in progress; another one may replace it."""
        self.current = None

    def close(self) -> None:
        """Free its memory for good."""
        with self._lock:
            self.is_closed = True
            self.current = None


def run(runner: Runner, inputs: Tensors, outputs: Sequence[str], stop: RunStop | None) -> list[Array]:
    """Run once and return ``outputs`` in that order. Raises `RunFailedError`."""
    try:
        return runner.run(inputs, outputs, None if stop is None else stop.options)
    except Exception as error:  # noqa: BLE001  (the text of any error may quote inputs)
        # Without the cause, whose text would be logged as well; its traceback may be logged.
        raise RunFailedError(error).with_traceback(error.__traceback__) from None

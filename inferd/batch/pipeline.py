"""Run the stages of a job concurrently, each in a thread of its own, a few items ahead of the next stage.

A stage is an iterator over the items of the stage before it. The caller iterates over the last one, which raises an
error of any stage after all items before the error. When the caller leaves the context, all threads end.
"""

import threading
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class _ClosedError(Exception):
    """Raised in a stage that reads from a closed stage."""


class Pipeline:
    """Context in which stages run; their threads have ended when it ends.

    Threads: one. ``ahead`` is the number of items that each stage may have ready.
    """

    def __init__(self, *, ahead: int = 1) -> None:
        self._ahead = ahead
        self._stages: list[_Stage[object]] = []

    def __enter__(self) -> Self:
        """Return this pipeline."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all stages, and wait for their threads."""
        for stage in self._stages:
            stage.close()
        for stage in self._stages:
            stage.join()

    def stage(self, name: str, items: Iterator[T]) -> Iterator[T]:
        """Start a thread that iterates over ``items``; return an iterator over them. A generator is closed."""
        stage = _Stage(name, items, self._ahead)
        self._stages.append(stage)  # type: ignore[arg-type]  # it is only closed from here
        stage.start()
        return stage


class _Stage(Generic[T]):
    """Items of an iterator that runs in a thread of its own.

    Threads: ``_run`` its own; ``__next__`` one; the others any. Invariants: at most ``ahead`` items are ready; a closed
    stage yields none.
    """

    def __init__(self, name: str, items: Iterator[T], ahead: int) -> None:
        self._items = items
        self._ahead = ahead
        self._ready: deque[T] = deque()
        self._error: BaseException | None = None
        self._has_ended = False
        self._is_closed = False
        self._changed = threading.Condition()
        # A second signal ends the process at once, whatever a thread waits for.
        self._thread = threading.Thread(target=self._run, name=f"inferd-batch-{name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Yield no more items, and read no more."""
        with self._changed:
            self._is_closed = True
            self._ready.clear()
            self._changed.notify_all()

    def join(self) -> None:
        """Wait for the end of the thread."""
        self._thread.join()

    def __iter__(self) -> Iterator[T]:
        """Return itself."""
        return self

    def __next__(self) -> T:
        """Return the next item. Raises the error of the iterator after its last item."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._has_ended or self._is_closed)
            if self._is_closed:
                raise _ClosedError
            if self._ready:
                self._changed.notify_all()
                return self._ready.popleft()
            if self._error is not None:
                raise self._error
            raise StopIteration

    def _run(self) -> None:
        try:
            self._take()
        except _ClosedError:
            pass
        # Raised by the reader of the items.
        except BaseException as error:  # noqa: BLE001
            self._error = error
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def _take(self) -> None:
        try:
            # A `for` loop would keep one more item alive in its variable.
            while self._put(next(self._items)):
                pass
        except StopIteration:
            pass
        finally:
            close = getattr(self._items, "close", None)
            if close is not None and not isinstance(self._items, _Stage):
                close()

    def _put(self, item: T) -> bool:
        """Wait for a place and add ``item``; return False if the stage is closed."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._ready) < self._ahead or self._is_closed)
            if not self._is_closed:
                self._ready.append(item)
                self._changed.notify_all()
            return not self._is_closed

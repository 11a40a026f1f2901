"""A child process that takes commands through a pipe."""

import multiprocessing
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Child:
    """Runs ``work`` with ``arguments`` and its end of ``pipe`` while the context is open; then it is killed."""

    def __init__(self, work: Callable[..., None], *arguments: object) -> None:
        spawning = multiprocessing.get_context("spawn")
        self.pipe, theirs = spawning.Pipe()
        self.process = spawning.Process(target=work, args=(*arguments, theirs), daemon=True)

    def __enter__(self) -> Self:
        """Start the process."""
        self.process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()

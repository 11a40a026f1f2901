"""What a server would log as warnings, in commands that have no log."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _Taker(logging.Handler):
    def __init__(self, take: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        self._take(record.getMessage())


@contextmanager
def warnings_to(take: Callable[[str], None]) -> Iterator[None]:
    """Context in which ``take`` gets the warnings of the package, which would go to standard error."""
    logger, taker = logging.getLogger("inferd"), _Taker(take)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(taker)
    try:
        yield
    finally:
        logger.removeHandler(taker)
        logger.propagate = propagate

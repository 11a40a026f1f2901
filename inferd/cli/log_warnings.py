"""Collect the warnings of the package's log, for commands that print them themselves."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _WarningHandler(logging.Handler):
    def __init__(self, on_warning: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._on_warning = on_warning

    def emit(self, record: logging.LogRecord) -> None:
        self._on_warning(record.getMessage())


@contextmanager
def warnings_to(on_warning: Callable[[str], None]) -> Iterator[None]:
    """Pass the warnings that are logged within the context to ``on_warning``, instead of to standard error."""
    logger, handler = logging.getLogger("inferd"), _WarningHandler(on_warning)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate

"""Errors of jobs and of single rows."""

from dataclasses import dataclass


class BatchError(Exception):
    """The job has failed: it cannot begin or go on. The text is for its user; started again, it continues."""


class UsageError(BatchError):
    """The options of the job contradict each other, the model or its inputs, or name what is not there."""


class InUseError(BatchError):
    """Another process has the lock: it writes to the same output."""


class UnreadableFileError(Exception):
    """A source file is damaged, or not in its format. The text says what, without the file."""


class RowsFailedError(Exception):
    """A run failed because of the rows in it: run apart, some of them may succeed. ``message`` is for the error row."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


#: Codes of `RowError`: a value that is no valid input, rows or files that cannot be read, a text or a picture that
#: cannot be prepared, a run that fails.
INVALID_INPUT, UNREADABLE, NOT_PREPARED, RUN_FAILED = "INVALID_INPUT", "UNREADABLE", "NOT_PREPARED", "RUN_FAILED"


@dataclass(frozen=True, slots=True)
class RowError:
    """A row without an answer, or a whole file that cannot be read.

    ``row`` is its number in the file ``source``, from 0; None for a file whose number of rows is not known.
    """

    source: str
    row: int | None
    code: str
    message: str

"""Errors of jobs and of single rows, and the check of names in options."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from inferd.plain_text import escaped, listed

#: Codes of `RowError`: an invalid value, a row or file that cannot be read, a text or a picture that cannot be
#: prepared, a run that failed.
INVALID_INPUT, UNREADABLE, NOT_PREPARED, RUN_FAILED = "INVALID_INPUT", "UNREADABLE", "NOT_PREPARED", "RUN_FAILED"


class BatchError(Exception):
    """The job failed: it cannot begin or continue. The text is for its user; the job run again continues."""


class UsageError(BatchError):
    """The options contradict each other, the model or the inputs, or name something that does not exist."""


class InUseError(BatchError):
    """Another process holds the lock, as it writes to the same output."""


class UnreadableFileError(Exception):
    """An input file is damaged, or in another format. The text says how, without the name of the file."""


class RowsFailedError(Exception):
    """A run failed, maybe only because of some of its rows. ``code`` and ``message`` are for error rows."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class RowError:
    """A row without an answer, or a whole file that cannot be read.

    ``row`` is its number in the file ``source``, from 0; None for a file whose rows cannot be counted.
    """

    source: str
    row: int | None
    code: str
    message: str


def check_known(option: str, name: str, known: Iterable[str], kind: str = "column", *, advice: str = "") -> None:
    """Raise `UsageError`, with a close match, unless ``name`` of ``option`` is among ``known``.

    ``advice`` is added to the message.
    """
    known = list(known)
    if name not in known:
        close = get_close_matches(name, known, 1)
        hint = (f"; did you mean {close[0]}?" if close else "") + (f"; {advice}" if advice else "")
        shown = listed(map(escaped, known)) or "none"
        raise UsageError(f'{option}: there is no {kind} "{escaped(name)}", only {shown}{hint}')

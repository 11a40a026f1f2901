"""Parts in which processes have ended: what is said of them, and which of them run in a process of their own."""

import logging
from collections.abc import Sequence

from inferd.batch.begun_parts import MEASURING, BegunParts
from inferd.batch.plan import Part

_log = logging.getLogger(__name__)

#: Most processes that end are ended from outside, and rarely twice in the same part.
_ENDS = 2

#: Parts that a warning names, and files of each.
_SHOWN_PARTS, _SHOWN_FILES = 4, 3


def find_suspects(
    begun: BegunParts, parts: Sequence[Part], sources: Sequence[str], *, can_run_apart: bool
) -> frozenset[int]:
    """Return the numbers of ``parts`` to run in a process of their own; warn of all in which a process has ended.

    ``sources`` are the names of the files. Without ``can_run_apart`` there are none.
    """
    ends = begun.ends({part.index for part in parts})
    suspects = {part for part, times in ends.items() if times >= _ENDS and can_run_apart}
    first = [part for part in parts if part.index in ends.keys() - suspects]
    if first:
        advice = (
            "these rows run in a process of their own"
            if can_run_apart
            else "leave the row out with --where, into another OUTPUT"
        )
        _log.warning(
            "an earlier run ended abruptly in %s: it was killed, or a row ended it; if it happens again, %s",
            _described(first, sources),
            advice,
        )
    apart = [part for part in parts if part.index in suspects]
    if apart:
        _log.warning(
            "earlier runs ended abruptly %d times in %s: these rows run last, in a process of their own; "
            "those that end it become error rows",
            max(ends[part.index] for part in apart),
            _described(apart, sources),
        )
    return frozenset(suspects)


def may_measure(begun: BegunParts) -> bool:
    """Whether rows may run to choose sizes; warn if not, since processes have ended in that."""
    ends = begun.ends({MEASURING}).get(MEASURING, 0)
    if ends >= _ENDS:
        _log.warning(
            "earlier runs ended abruptly %d times while they measured the first rows: sizes are not measured; "
            "--batch-rows, --look-ahead and --part-rows set them",
            ends,
        )
    return ends < _ENDS


def _described(parts: Sequence[Part], sources: Sequence[str]) -> str:
    """Return the numbers and the rows of ``parts``."""
    texts = [f"part {part.index} ({_rows(part, sources)})" for part in parts[:_SHOWN_PARTS]]
    more = len(parts) - len(texts)
    return " and ".join(texts) + (f" and {more} more" if more else "")


def _rows(part: Part, sources: Sequence[str]) -> str:
    shown = part.ranges[:_SHOWN_FILES]
    texts = [f"rows {each.start} to {max(each.stop - 1, 0)} of {sources[each.file]}" for each in shown]
    more = len(part.ranges) - len(texts)
    return ", ".join(texts) + (f", {more} more files" if more else "")

"""Note the parts that a process runs, to find later those in which a process ended abruptly.

A process has a file of its parts while rows run, and deletes it when it stops by itself, also after an error. A file
that is left is of a process that was killed, or that a row ended, for example by a crash in a kernel. Parts in which
processes ended twice run in a worker process: docs/decisions/offline-rows-that-end-the-process.md.
"""

import json
import logging
import threading
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, suppress

import orjson

from inferd.batch.output_folder import OutputFolder
from inferd.batch.plan import Part

_PREFIX = "begun-"

#: The number of a part that stands for the rows measured before there are parts.
MEASURING = -1

_log = logging.getLogger(__name__)
#: Abrupt ends after which a part is suspect: most processes are killed from outside, rarely twice in one part.
_ENDS = 2

#: The most parts that a warning names, and the most files of each.
_SHOWN_PARTS, _SHOWN_FILES = 4, 3


class BegunParts:
    """The parts that process ``index`` runs, noted in the folder ``work`` of ``folder``.

    Threads: any for `begin` and `finish`, also at the same time; one for the others.
    """

    def __init__(self, folder: OutputFolder, work: str, index: int) -> None:
        self._folder = folder
        self._work = work
        self._name = f"{work}{_PREFIX}{index}.json"
        self._lock = threading.Lock()
        self._ends: dict[int, int] = {}
        self._begun: dict[int, int] = {}

    def ends(self, parts: Container[int]) -> dict[int, int]:
        """Return how often a process ended abruptly in each of ``parts``; parts without an end are left out."""
        found: dict[int, int] = {}
        for content in self._folder.read_all(begun_files(self._folder, self._work)):
            # A damaged file is ignored.
            with suppress(AttributeError, TypeError, ValueError):
                for part, ends in json.loads(content).items():
                    found[int(part)] = max(int(ends), found.get(int(part), 0))
        self._ends = {part: ends for part, ends in sorted(found.items()) if part in parts}
        return self._ends

    @contextmanager
    def running(self) -> Iterator[None]:
        """Context in which parts run. Deletes this process' note at its end, so that no abrupt end is counted."""
        try:
            yield
        finally:
            self._folder.delete([self._name])

    def begin(self, part: int) -> None:
        """Note that rows of ``part`` are about to run."""
        with self._lock:
            self._begun[part] = self._ends.get(part, 0) + 1
            content = orjson.dumps({str(each): ends for each, ends in self._begun.items()})
        with self._folder.create(self._name) as file:
            file.write(content)

    def finish(self, part: int) -> None:
        """Leave ``part``, which is done, out of the next note."""
        with self._lock:
            self._begun.pop(part, None)


def begun_files(folder: OutputFolder, work: str) -> list[str]:
    """Return the names of the files of all processes."""
    return [name for name in folder.sizes(work.rstrip("/")) if name.removeprefix(work).startswith(_PREFIX)]


def find_suspects(
    begun: BegunParts, parts: Sequence[Part], sources: Sequence[str], *, can_isolate: bool
) -> frozenset[int]:
    """Return the numbers of the ``parts`` to run in a worker process; warn of all in which a process ended.

    ``sources`` are the names of the files. Without ``can_isolate`` the result is empty.
    """
    ends = begun.ends({part.index for part in parts})
    suspects = {part for part, times in ends.items() if times >= _ENDS and can_isolate}
    first = [part for part in parts if part.index in ends.keys() - suspects]
    if first:
        advice = (
            "these rows run in a process of their own"
            if can_isolate
            else "leave the row out with --where, into another OUTPUT"
        )
        _log.warning(
            "an earlier run ended abruptly in %s: it was killed, or a row ended it; if it happens again, %s",
            _described(first, sources),
            advice,
        )
    isolated = [part for part in parts if part.index in suspects]
    if isolated:
        _log.warning(
            "earlier runs ended abruptly %d times in %s: these rows run last, in a process of their own; "
            "those that end it become error rows",
            max(ends[part.index] for part in isolated),
            _described(isolated, sources),
        )
    return frozenset(suspects)


def may_measure(begun: BegunParts) -> bool:
    """Return True if rows may run to choose sizes; warn if not, because processes ended while they did."""
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

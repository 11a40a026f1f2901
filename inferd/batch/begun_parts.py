"""The parts that a process is at, as a file of the job: it tells later in which of them a process has ended.

The file is there while rows run, and deleted when the process ends its work by itself, also with an error. What is left
of it is of a process that was killed, or that a row has ended, as a crash in a kernel does.
"""

import json
import threading
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress

import orjson

from inferd.batch.output_folder import OutputFolder

_PREFIX = "begun-"

#: Stands for the rows that are measured before there are parts.
MEASURING = -1


class BegunParts:
    """The parts that process ``index`` is at, in the folder ``work`` of ``folder``.

    Threads: `begin` and `finish` any, also at the same time; the others one.
    """

    def __init__(self, folder: OutputFolder, work: str, index: int) -> None:
        self._folder = folder
        self._work = work
        self._name = f"{work}{_PREFIX}{index}.json"
        self._lock = threading.Lock()
        self._ends: dict[int, int] = {}
        self._begun: dict[int, int] = {}

    def ends(self, parts: Container[int]) -> dict[int, int]:
        """Return how often a process has ended in each of ``parts``, without those in which none has."""
        found: dict[int, int] = {}
        for content in self._folder.read_all(begun_files(self._folder, self._work)):
            # One that is damaged says nothing.
            with suppress(AttributeError, TypeError, ValueError):
                for part, ends in json.loads(content).items():
                    found[int(part)] = max(int(ends), found.get(int(part), 0))
        self._ends = {part: ends for part, ends in sorted(found.items()) if part in parts}
        return self._ends

    @contextmanager
    def running(self) -> Iterator[None]:
        """Context in which parts are run; afterwards this process has ended in none."""
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
        """Leave ``part`` out of the next note: it is done."""
        with self._lock:
            self._begun.pop(part, None)


def begun_files(folder: OutputFolder, work: str) -> list[str]:
    """Return the names of the files of all processes."""
    return [name for name in folder.sizes(work.rstrip("/")) if name.removeprefix(work).startswith(_PREFIX)]

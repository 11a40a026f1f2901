"""Decides which model versions in a repository have changed and are completely written.

Nothing says when an upload is over. A version counts as changed only when its files were the same in two looks at them,
some time apart; each change starts that over, and a version that disappears is treated alike. So an upload that pauses
for that long is taken for complete: loading it fails if a file is truncated, and its next change is noticed.
"""

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from inferd.models.model_source import ModelSource
from inferd.runtime.model_folder import has_genai_config

#: Name and version of a model.
VersionKey = tuple[str, str]

#: What identifies the content of files without reading them; comparable, and of no other use.
Fingerprint = frozenset[tuple[str, int, int, int]]

#: Directories in the directory of a model, other than its versions, whose files belong to it, as in Triton.
_SHARED_FOLDERS = ("warmup",)

#: A version's directory that leads to more files than this, such as a link to all of a disk, is not looked at further.
_MOST_FILES = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """What is to be loaded and unloaded.

    ``settled``: versions that are new or have changed, and were the same in two looks. ``gone``: missing in two looks.
    """

    settled: Mapping[VersionKey, Fingerprint]
    gone: frozenset[VersionKey]


@dataclass(frozen=True, slots=True)
class _Sighting:
    """The files of a version, None if it is missing, and when they were first seen so."""

    files: Fingerprint | None
    since: float


class FileWatch:
    """Compares each look at a repository with the one before. Used by one thread.

    A look that comes less than ``still_s`` after the last change decides nothing, because a file may be written again
    within the resolution of its times. ``clock`` is monotonic; times of files are compared with each other only.
    """

    def __init__(self, *, still_s: float, clock: Callable[[], float]) -> None:
        self._still_s = still_s
        self._clock = clock
        self._reported: dict[VersionKey, Fingerprint] = {}
        self._unsettled: dict[VersionKey, _Sighting] = {}

    def poll(self, listing: Mapping[VersionKey, Fingerprint]) -> Changes:
        """Return what has changed since it was last reported, and did not change between this look and an earlier one.

        ``listing`` has the versions that are there now.
        """
        now = self._clock()
        settled: dict[VersionKey, Fingerprint] = {}
        gone = set()
        for key in listing.keys() | self._reported.keys() | self._unsettled.keys():
            files = listing.get(key)
            if not self._is_settled(key, files, now):
                continue
            del self._unsettled[key]
            if files is None:
                gone.add(key)
                del self._reported[key]
            else:
                settled[key] = self._reported[key] = files
        return Changes(settled=settled, gone=frozenset(gone))

    def accept(self, key: VersionKey, files: Fingerprint) -> None:
        """Take the present state of a version as known, so that only changes from it are reported."""
        self._reported[key] = files

    def is_known(self, key: VersionKey, files: Fingerprint) -> bool:
        """Whether ``files`` are what was last reported of a version. Any thread."""
        return self._reported.get(key) == files

    def _is_settled(self, key: VersionKey, files: Fingerprint | None, now: float) -> bool:
        """Whether a change of ``key`` is to be reported; notes it if it is the first sight of it."""
        if files == self._reported.get(key):
            self._unsettled.pop(key, None)
            return False
        sighting = self._unsettled.get(key)
        if sighting is None or sighting.files != files:
            self._unsettled[key] = _Sighting(files, now)
            return False
        return now - sighting.since >= self._still_s


def fingerprint_of(source: ModelSource) -> Fingerprint:
    """Return the fingerprint of all files of one version: in its directory and below, and those of its model.

    The latter are in the directory around that of the version: settings, labels, inputs for warm-up. Links are
    followed. Hidden entries do not count, as uploads have them before they are renamed. In a directory with several
    models, the files of each begin with its name. What cannot be read is part of the fingerprint as such.
    """
    settings = (path for path in (source.config, source.triton) if path is not None)
    entry = _entry if source.remote is None else source.remote.identity
    return frozenset(map(entry, islice(chain(settings, _files_of(source)), _MOST_FILES)))


def _files_of(source: ModelSource) -> Iterator[Path]:
    folder = source.path.parent
    if folder.name.isdecimal():
        yield from _files(folder.parent, recursively=False)
        for name in _SHARED_FOLDERS:
            yield from _files(folder.parent / name)
    elif _has_several_models(folder, source.path.suffix):
        yield from (path for path in _files(folder, recursively=False) if path.name.startswith(source.path.stem))
        return
    yield from _files(folder)


def _has_several_models(folder: Path, suffix: str) -> bool:
    """Whether ``folder`` has models of its own for several files, which those of one language model are not."""
    if has_genai_config(folder):
        return False
    return sum(path.suffix == suffix for path in _files(folder, recursively=False)) > 1


def _files(folder: Path, *, recursively: bool = True, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield the files in ``folder``, or it itself if it cannot be listed. ``above`` are the directories it is in."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except FileNotFoundError:
        return
    except OSError:
        yield folder
        return
    here = os.path.realpath(folder)
    for entry in entries:
        if not _is_folder(entry):
            yield entry
        elif recursively and here not in above:  # a link may lead to where it is
            yield from _files(entry, above=(*above, here))


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False


def _entry(path: Path) -> tuple[str, int, int, int]:
    """Return what identifies the content of a file.

    The time of the last change of its data or its properties shows what its own times, which programs may set, do not,
    and a file in its place. Its number would not: some file systems change numbers.
    """
    try:
        found = path.stat()
    except OSError as error:
        return str(path), -(error.errno or 1), 0, 0
    return str(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns

"""Poll the repositories for model versions that have changed and are completely written.

Nothing says when an upload is over: it may stop at any byte and continue later. A version counts as changed only when
its files were the same in two polls, some time apart; each change starts that over, and a version that disappears is
treated alike. So an upload that pauses for that long is taken for complete: loading it fails if a file is truncated,
and its next change is noticed. Files that were not changed for an interval when the server starts need no second poll.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from inferd.models.catalog import Catalog, Versions
from inferd.models.fingerprint import Fingerprint, fingerprint_of
from inferd.models.model_source import ModelSource

#: Name and version of a model.
VersionKey = tuple[str, str]

#: Time for which files must not change, as a share of the interval, and at most: file systems have times in seconds.
_SETTLE_SHARE = 0.5
_MAX_SETTLE_S = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """The versions to load and to unload.

    ``settled``: new or changed, and the same in two polls. ``gone``: missing in two polls.
    """

    settled: Mapping[VersionKey, Fingerprint]
    gone: frozenset[VersionKey]


@dataclass(frozen=True, slots=True)
class _Sighting:
    """The files of a version, None if it is missing, and when they were first seen so."""

    files: Fingerprint | None
    since: float


class FileWatch:
    """Compares each poll of the repositories with the one before. Used by one thread.

    A poll less than ``settle_s`` after the last change decides nothing, because a file may be written again within the
    resolution of its times. ``clock`` is monotonic; times of files are compared with each other only.
    """

    def __init__(self, *, settle_s: float, clock: Callable[[], float]) -> None:
        self._settle_s = settle_s
        self._clock = clock
        self._reported: dict[VersionKey, Fingerprint] = {}
        self._unsettled: dict[VersionKey, _Sighting] = {}

    def poll(self, listing: Mapping[VersionKey, Fingerprint]) -> Changes:
        """Return the versions that have changed since the last report, but not since an earlier poll.

        ``listing`` has the present versions.
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
        """Count the present files of a version as reported, so that only changes from them are."""
        self._reported[key] = files

    def is_known(self, key: VersionKey, files: Fingerprint) -> bool:
        """Return True if ``files`` are those that were last reported of a version. Any thread."""
        return self._reported.get(key) == files

    def _is_settled(self, key: VersionKey, files: Fingerprint | None, now: float) -> bool:
        """Return True if a change of ``key`` has settled; records when it was first seen."""
        if files == self._reported.get(key):
            self._unsettled.pop(key, None)
            return False
        sighting = self._unsettled.get(key)
        if sighting is None or sighting.files != files:
            self._unsettled[key] = _Sighting(files, now)
            return False
        return now - sighting.since >= self._settle_s


class Poller:
    """Finds models whose versions have changed. One thread.

    ``clock`` is monotonic; ``wall_clock`` is that of the file system, in seconds since the epoch.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        interval_s: float,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._catalog = catalog
        self._interval_s = interval_s
        self._wall_clock = wall_clock
        self._watch = FileWatch(settle_s=min(_SETTLE_SHARE * interval_s, _MAX_SETTLE_S), clock=clock)
        self._settled: dict[str, dict[str, ModelSource]] = {}

    def complete_at_start(self, found: Mapping[str, Versions]) -> dict[str, Versions]:
        """Return the versions, by model, of those ``found`` at start that are old enough to be complete."""
        changed_before = self._wall_clock() - self._interval_s
        for name, versions in found.items():
            for number, source in versions.items():
                if _changed_at(source) < changed_before:
                    self._watch.accept((name, number), fingerprint_of(source))
                    self._settled.setdefault(name, {})[number] = source
        return {name: dict(versions) for name, versions in self._settled.items()}

    def is_complete(self, source: ModelSource) -> bool:
        """Return True if ``source`` is as it was last found complete; otherwise a later poll reports it."""
        return self._watch.is_known((source.name, source.version), fingerprint_of(source))

    def poll(self) -> dict[str, Versions]:
        """Return all complete versions of each model that has changed; none for a model that is gone.

        While a given path itself is missing, nothing in it counts as gone. Remote storage has the versions that it
        lists, or listed last.
        """
        absent = self._catalog.missing_paths()
        sources = {
            key: source
            for key, source in _by_key(self._settled).items()
            if source.remote is None
            and (not _is_missing(source.path) or any(source.path.is_relative_to(path) for path in absent))
        }
        sources |= _by_key(self._catalog.scan())
        changes = self._watch.poll({key: fingerprint_of(source) for key, source in sources.items()})
        for name, number in changes.settled:
            self._settled.setdefault(name, {})[number] = sources[name, number]
        for name, number in changes.gone:
            self._settled.get(name, {}).pop(number, None)
        names = {name for name, _ in (*changes.settled, *changes.gone)}
        return {name: dict(self._settled.get(name, {})) for name in sorted(names)}


def _by_key(models: Mapping[str, Versions]) -> dict[VersionKey, ModelSource]:
    return {(name, number): source for name, versions in models.items() for number, source in versions.items()}


def _is_missing(path: Path) -> bool:
    """Return True if there is no such file. Versions in a directory that cannot be read now are not gone."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _changed_at(source: ModelSource) -> float:
    """Return when a file of a version was last changed, by a time that uploads cannot set; seconds since the epoch."""
    if source.remote is not None:
        return source.remote.changed_at()
    folder = source.path.parent
    paths = [*folder.rglob("*"), folder, *(path for path in (source.config, source.triton) if path is not None)]
    return max(map(_ctime, paths))


def _ctime(path: Path) -> float:
    try:
        return path.stat().st_ctime
    except OSError:
        # It is not complete now.
        return float("inf")

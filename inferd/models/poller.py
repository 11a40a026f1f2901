"""Looks through the repositories again and again, for versions that are complete.

An upload may stop at any byte and go on later, so what is new or has changed is left alone until two looks have found
it the same. Files that have not been changed for an interval when the server starts need no second look.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from inferd.models.catalog import Catalog, Versions
from inferd.models.file_watch import FileWatch, VersionKey, fingerprint_of
from inferd.models.model_source import ModelSource

#: Time between the looks that decide, as a share of the interval, and at most: file systems have times in seconds.
_STILL_SHARE = 0.5
_STILL_S = 2.0


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
        self._watch = FileWatch(still_s=min(_STILL_SHARE * interval_s, _STILL_S), clock=clock)
        self._settled: dict[str, dict[str, ModelSource]] = {}

    def first(self, found: Mapping[str, Versions]) -> dict[str, Versions]:
        """Return those of the versions ``found`` at start that are old enough to be complete; by model."""
        changed_before = self._wall_clock() - self._interval_s
        for name, versions in found.items():
            for number, source in versions.items():
                if _changed_at(source) < changed_before:
                    self._watch.accept((name, number), fingerprint_of(source))
                    self._settled.setdefault(name, {})[number] = source
        return {name: dict(versions) for name, versions in self._settled.items()}

    def is_complete(self, source: ModelSource) -> bool:
        """Whether ``source`` is as it was last found complete; otherwise a later look will report it."""
        return self._watch.is_known((source.name, source.version), fingerprint_of(source))

    def look(self) -> dict[str, Versions]:
        """Return all complete versions of each model that has changed; none for a model that is gone.

        While a given path itself is not there, nothing in it is gone. What remote storage has is what it lists, or has
        listed last.
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
    """Whether there is no such file. A directory that cannot be read now does not make its versions gone."""
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

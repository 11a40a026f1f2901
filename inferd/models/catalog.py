"""List the models in the repositories of a server, and choose the versions to serve."""

import logging
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

from inferd.config.repository import chosen_versions
from inferd.config.settings import ModelSettings, Settings
from inferd.models.model_directory import RepositoryError
from inferd.models.model_source import ModelSource, is_same_file
from inferd.models.repository import RemoteSources, absolute_path, no_remote, resolve, split_name
from inferd.models.settings import read_model_settings
from inferd.runtime.errors import ModelLoadError

_log = logging.getLogger(__name__)

#: Versions of one model by number.
Versions = Mapping[str, ModelSource]


class Catalog:
    """The models in ``paths``; those that are texts are addresses of ``remote`` storage.

    Reads directories and waits for storage, so the poll thread must not call it; any other thread may.
    """

    def __init__(self, settings: Settings, paths: Sequence[Path | str], remote: RemoteSources = no_remote) -> None:
        self._settings = settings
        self._paths = paths
        self._remote = remote
        #: The last problem of each path or version, so that it is logged once.
        self._problems: dict[Hashable, str] = {}

    def scan(self, only: str = "") -> dict[str, Versions]:
        """Return the versions of all models by name; of a version that is there twice, the first one.

        Logs duplicates, and each path that cannot be searched. If a repository has a model of the name ``only``, its
        other models may be left out: each takes a tenth of a millisecond, for which requests wait.
        """
        found: dict[str, dict[str, ModelSource]] = {}
        for path in self._paths:
            for source in self._sources(path, only):
                first = found.setdefault(source.name, {}).setdefault(source.version, source)
                if not is_same_file(first, source):
                    twice = f'model "{source.name}" version "{source.version}" exists twice'
                    self._report((source.name, source.version), f"{twice}: {first.place} is taken, not {source.place}")
        return dict(found)

    def missing_paths(self) -> list[Path]:
        """Return those of the given paths that are not there now, such as volumes that are not mounted."""
        paths = [absolute_path(split_name(path)[1]) for path in self._paths if isinstance(path, Path)]
        return [path for path in paths if not os.path.lexists(path)]

    def _sources(self, path: Path | str, only: str) -> Sequence[ModelSource]:
        name = self._settings.repository.config_name
        try:
            sources = resolve([path], warn=_log.debug, config_name=name, remote=self._remote, only=only)
        except RepositoryError as error:
            self._report(path, str(error))
            return ()
        self._problems.pop(path, None)
        return sources

    def _report(self, place: Hashable, problem: str) -> None:
        if self._problems.get(place) != problem:
            self._problems[place] = problem
            _log.warning("%s", problem)

    def settings_of(self, versions: Versions) -> dict[str, ModelSettings | None]:
        """Return the settings of each of the ``versions`` of a model; None where they cannot be read.

        Files that several versions share are read once. Loading a version reads them again, beside its model file, and
        reports what is wrong.
        """
        read: dict[Hashable, ModelSettings | None] = {}
        for source in versions.values():
            files = _settings_files(source)
            if files not in read:
                read[files] = self._read(source)
        return {number: read[_settings_files(source)] for number, source in versions.items()}

    def _read(self, source: ModelSource) -> ModelSettings | None:
        try:
            return read_model_settings(self._settings, source, log=False)
        except ModelLoadError:
            return None

    def chosen(self, versions: Versions, settings: ModelSettings | None) -> set[str]:
        """Return the numbers of the ``versions`` of one model that its version policy serves."""
        policy = None if settings is None else settings.versions
        return chosen_versions(self._settings.repository.versions if policy is None else policy, versions)


def _settings_files(source: ModelSource) -> Hashable:
    return source.config, source.triton, source.override

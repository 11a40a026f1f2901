"""The repositories of a server: which model versions they have now, and which of them are wanted."""

import logging
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from google.protobuf import text_format

from inferd.config.repository import chosen_versions
from inferd.config.settings import ModelSettings, Settings
from inferd.errors import InvalidInputError
from inferd.models.file_watch import fingerprint_of
from inferd.models.model_directory import RepositoryError
from inferd.models.model_source import ModelSource, is_same_file
from inferd.models.repository import RemoteSources, absolute_path, no_remote, resolve, split_name
from inferd.models.settings import read_model_settings
from inferd.models.temporary_folder import TemporaryFolder
from inferd.models.triton import TritonConfigError, config_from_json, require_own_files
from inferd.runtime.errors import ModelLoadError

_log = logging.getLogger(__name__)

#: Versions of one model by number.
Versions = Mapping[str, ModelSource]

#: VERSION and NAME.
_FILE_PARTS = 2


def fingerprint(source: ModelSource) -> Hashable:
    """Return what differs once the files of ``source`` do; what a call has sent is never the same as the repository."""
    return fingerprint_of(source) if source.override is None else source.override


@dataclass(frozen=True, slots=True)
class LoadOverride:
    """What a call sends to load a model with.

    ``config`` is the JSON of a Triton ModelConfig, in place of the model's config.pbtxt. ``files`` are contents by
    ``VERSION/NAME``; if there are any, they are the only files of the model.
    """

    config: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)


class Catalog:
    """What is in ``paths``, of which texts are addresses of ``remote`` storage.

    Reads directories, and waits for storage, so that it must not be called by the poll thread; any other may.
    """

    def __init__(self, settings: Settings, paths: Sequence[Path | str], remote: RemoteSources = no_remote) -> None:
        self._settings = settings
        self._paths = paths
        self._remote = remote
        #: What was wrong with a path when it was last searched, or with a version, so that it is logged once.
        self._problems: dict[Hashable, str] = {}

    def scan(self, only: str = "") -> dict[str, Versions]:
        """Return the versions of all models by name; of a version that is there twice, the first one.

        Logs that, and each path that cannot be searched. Of a repository that has a model of the name ``only``, other
        models may be left out: each takes a tenth of a millisecond that requests wait for.
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

    def _report(self, what: Hashable, problem: str) -> None:
        if self._problems.get(what) != problem:
            self._problems[what] = problem
            _log.warning("%s", problem)

    def settings_of(self, versions: Versions) -> ModelSettings | None:
        """Return what the settings of a model say of all its versions; None if they cannot be read.

        Loading a version reports why.
        """
        try:
            source = next(iter(versions.values()), None)
            return None if source is None else read_model_settings(self._settings, source, log=False)
        except ModelLoadError:
            return None

    def wanted(self, versions: Versions, settings: ModelSettings | None) -> set[str]:
        """Return the numbers of the ``versions`` of one model that its policy serves."""
        policy = None if settings is None else settings.versions
        return chosen_versions(self._settings.repository.versions if policy is None else policy, versions)


class OverriddenModel:
    """The versions of a model with what a call overrides, in a temporary directory until `delete`."""

    def __init__(self, name: str, override: LoadOverride, versions: Versions) -> None:
        """Write the files. Raises `InvalidInputError` for invalid ones."""
        self._folder = TemporaryFolder()
        try:
            config = self._folder.path / "config.pbtxt"
            config.write_text(_config_text(override.config), encoding="utf-8")
            if override.files:
                versions = self._write(name, override.files)
        except BaseException:
            self.delete()
            raise
        self.versions: Versions = {number: replace(each, override=config) for number, each in versions.items()}

    def delete(self) -> None:
        """Delete the files; a model that has been loaded does not need them."""
        self._folder.delete()

    def _write(self, name: str, files: Mapping[str, bytes]) -> Versions:
        model = self._folder.path / "model"
        for path, content in files.items():
            parts = PurePosixPath(path).parts
            if len(parts) < _FILE_PARTS or not parts[0].isdecimal() or {"..", "."} & set(parts) or "\0" in path:
                raise InvalidInputError(f'file:{path}: expected VERSION/NAME, such as "1/model.onnx"')
            target = model.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        try:
            sources = resolve([model], warn=_log.debug)
        except RepositoryError as error:
            raise InvalidInputError('file: expected an ONNX file, such as "1/model.onnx", found none') from error
        return {source.version: replace(source, name=name) for source in sources}


def _config_text(config: str) -> str:
    """Return the JSON of a ModelConfig as a config.pbtxt. Raises `InvalidInputError`."""
    try:
        parsed = config_from_json(config)
        require_own_files(parsed)
    except TritonConfigError as error:
        raise InvalidInputError(str(error)) from error
    return text_format.MessageToString(parsed)

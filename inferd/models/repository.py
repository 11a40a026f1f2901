"""From the paths that a server is given to the model versions they hold. Looks at names only, opens no file.

Names and neighbours are those of the paths that were given, wherever links lead: caches, ConfigMaps and git-annex link
``model.onnx`` to a file that is called by its hash. What cannot be looked at is passed over, and hides nothing else.
"""

import logging
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from inferd.plain_text import escaped
from inferd.small_files import kind_of, why_unreadable

_log = logging.getLogger(__name__)

_SUFFIX = ".onnx"
_CONFIG = "model.yaml"
_ONLY_VERSION = "1"

#: An error tells so many reasons why there was nothing in a directory.
_MOST_REASONS = 8


class RepositoryError(Exception):
    """A path does not hold models in a way that is understood; the text says what was found."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSource:
    """Where one model version comes from. ``config`` is the model's own settings file, if it has one."""

    name: str
    version: str
    path: Path
    config: Path | None = None


def resolve(paths: Sequence[Path], warn: Callable[[str], None] = _log.warning) -> list[ModelSource]:
    """Return what ``paths`` hold, in their order. Raises `RepositoryError`.

    A path is an ``.onnx`` file, a directory with one, a model's directory ``NAME`` with ``VERSION/model.onnx``, or a
    repository of such. Hidden entries are not looked at. The settings of a model are in its directory; a directory that
    holds several models has none that would be for one file of them.

    A path that was given is an error if it holds nothing that is understood. Below it, models and versions that cannot
    be read or are not understood are passed over, and ``warn`` is told.
    """
    sources: dict[tuple[str, str], ModelSource] = {}
    for path in paths:
        for source in _Search(warn).sources(as_given(path)):
            other = sources.setdefault((source.name, source.version), source)
            if os.path.realpath(other.path) != os.path.realpath(source.path):
                msg = f'model "{source.name}" version "{source.version}" is there twice: {other.path} and {source.path}'
                raise RepositoryError(msg)
    return list(sources.values())


def as_given(path: Path) -> Path:
    """Return ``path`` from the root on. Only what has no name of its own is resolved: up to the last ``..``."""
    parts = path.absolute().parts
    behind = max((at for at, part in enumerate(parts, 1) if part == os.pardir), default=0)
    return Path(os.path.realpath(Path(*parts[:behind])), *parts[behind:]) if behind else Path(*parts)


def config_beside(file: Path) -> Path | None:
    """Return the settings for the model in ``file``, if it is the one model of its directory and has any."""
    try:
        files = _Search(lambda _: None).look_into(file.parent).files
        is_the_model = _model_file(file.parent, files) == file
    except _UnreadableError:
        # It cannot be told what else is there. That the settings cannot be read either is for somebody to learn.
        is_the_model = True
    except RepositoryError:
        is_the_model = False
    return _config_of_file(file) if is_the_model else None


class _UnreadableError(RepositoryError):
    """A directory cannot be listed."""


@dataclass(frozen=True, slots=True)
class _Folder:
    """What is in a directory, by name: entries that are called ``.onnx``, whatever they are, and directories."""

    path: Path
    files: Sequence[Path]
    folders: Sequence[Path]


class _Search:
    """Looks through one path that was given. What is passed over is told at once, and kept for the error."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._reasons: list[str] = []

    def sources(self, path: Path) -> list[ModelSource]:
        """Return the model versions at ``path``. Raises `RepositoryError` if there are none."""
        try:
            mode = _mode(path)
        except OSError as error:
            raise RepositoryError(_cannot_read(path, error)) from error
        if not stat.S_ISDIR(mode):
            return [_source_of_file(path, mode)]
        folder = self.look_into(path)
        found = list(self._model(folder))
        if not found:
            found = [source for each in folder.folders for source in self._one_of_several(each)]
        if not found:
            expected = f"expected an {_SUFFIX} file, VERSION/model.onnx or NAME/VERSION/model.onnx in it, found none"
            raise RepositoryError("; ".join([f"{path}: {expected}", *self._reasons[:_MOST_REASONS]]))
        return found

    def look_into(self, path: Path) -> _Folder:
        """List a directory. Raises `RepositoryError` if that cannot be done."""
        try:
            entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
        except OSError as error:
            raise _UnreadableError(_cannot_read(path, error)) from error
        files, folders = [], []
        for entry in entries:
            is_model = entry.suffix == _SUFFIX
            try:
                if stat.S_ISDIR(_mode(entry)):
                    folders.append(entry)
                    continue
            except OSError as error:
                # Whoever loads a model says what is wrong with its file, and the server that it failed.
                if not is_model:
                    self._pass_over(_cannot_read(entry, error))
            if is_model:
                files.append(entry)
        return _Folder(path, files, folders)

    def _one_of_several(self, path: Path) -> list[ModelSource]:
        try:
            return list(self._model(self.look_into(path)))
        except RepositoryError as error:
            self._pass_over(str(error))
            return []

    def _model(self, folder: _Folder) -> Iterator[ModelSource]:
        """Yield the versions of the model in ``folder``; none if there is no model in it."""
        name = folder.path.name
        versions = {entry.name: entry for entry in folder.folders if entry.name.isdecimal()}
        file = _model_file(folder.path, folder.files)
        if file is None and not versions:
            return
        _require_name(folder.path, name)
        if file is None:
            yield from self._versions(name, versions, _config_in(folder.path))
            return
        if versions:
            found = f"found {file.name} beside {min(versions)}"
            raise RepositoryError(f"{folder.path}: expected an {_SUFFIX} file or version directories, {found}")
        yield ModelSource(name=name, version=_ONLY_VERSION, path=file, config=_config_of_file(file))

    def _versions(self, name: str, versions: dict[str, Path], config: Path | None) -> Iterator[ModelSource]:
        for version, path in sorted(versions.items(), key=lambda item: int(item[0])):
            try:
                file = _model_file(path, self.look_into(path).files)
            except RepositoryError as error:
                self._pass_over(str(error))
                continue
            if file is None:
                self._pass_over(f"{path}: expected an {_SUFFIX} file in it, found none")
            else:
                yield ModelSource(name=name, version=str(int(version)), path=file, config=config)

    def _pass_over(self, reason: str) -> None:
        self._reasons.append(reason)
        self._warn(escaped(f"passed over: {reason}"))


def _source_of_file(path: Path, mode: int) -> ModelSource:
    if path.suffix != _SUFFIX or not stat.S_ISREG(mode):
        found = "" if stat.S_ISREG(mode) else f", found {kind_of(mode)}"
        raise RepositoryError(f"{path}: expected an {_SUFFIX} file or a directory{found}")
    _require_name(path, path.stem)
    return ModelSource(name=path.stem, version=_ONLY_VERSION, path=path, config=config_beside(path))


def _require_name(path: Path, name: str) -> None:
    """Refuse names that callers could not write: what cannot be seen, or is not UTF-8."""
    if not name or escaped(name) != name:
        raise RepositoryError(f"{path}: expected a model with a name of characters that can be seen, in UTF-8")


def _model_file(folder: Path, files: Sequence[Path]) -> Path | None:
    """Return the file of ``files`` that is the model in ``folder``; None if there are none."""
    named = folder / f"model{_SUFFIX}"
    if len(files) > 1 and named not in files:
        names = ", ".join(file.name for file in files)
        raise RepositoryError(f"{folder}: expected one {_SUFFIX} file, found {names}")
    return named if named in files else next(iter(files), None)


def _config_of_file(file: Path) -> Path | None:
    """Return the settings in the directory of ``file``, or above it where that is one of a version."""
    folder = file.parent
    return _config_in(folder) or (_config_in(folder.parent) if folder.name.isdecimal() else None)


def _config_in(folder: Path) -> Path | None:
    config = folder / _CONFIG
    try:
        config.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        # Whatever it is: that it cannot be read is for somebody to learn, as with a link that leads nowhere.
        return config
    return config


def _mode(path: Path) -> int:
    """Return the kind of file that ``path`` leads to. Raises `OSError`."""
    try:
        return path.stat().st_mode
    except ValueError as error:
        raise OSError(str(error)) from error


def _cannot_read(path: Path, error: OSError) -> str:
    return f"{path}: {why_unreadable(path, error)}"

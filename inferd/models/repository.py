"""From the paths that a server is given to the model versions they hold. Looks at names only, opens no file."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from inferd.plain_text import escaped

_log = logging.getLogger(__name__)

_SUFFIX = ".onnx"
_CONFIG = "model.yaml"
_ONLY_VERSION = "1"


class RepositoryError(Exception):
    """A path does not hold models in a way that is understood; the text says what was found."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSource:
    """Where one model version comes from. ``config`` is the model's own settings file, if it has one."""

    name: str
    version: str
    path: Path
    config: Path | None = None


def resolve(paths: Sequence[Path]) -> list[ModelSource]:
    """Return what ``paths`` hold, in their order. Raises `RepositoryError`.

    A path is an ``.onnx`` file, a directory with one, a model's directory ``NAME`` with ``VERSION/model.onnx``, or a
    repository of such. Hidden entries are not looked at. The settings of a model are in its directory; a directory that
    holds several models has none that would be for one file of them.
    """
    sources: dict[tuple[str, str], ModelSource] = {}
    for path in paths:
        for source in _sources(path.resolve()):
            _require_name(source)
            other = sources.setdefault((source.name, source.version), source)
            if other.path != source.path:
                msg = f'model "{source.name}" version "{source.version}" is there twice: {other.path} and {source.path}'
                raise RepositoryError(msg)
    return list(sources.values())


def _sources(path: Path) -> list[ModelSource]:
    if not path.exists():
        msg = f"{path}: there is no such file or directory"
        raise RepositoryError(msg)
    if not path.is_dir():
        if path.suffix != _SUFFIX or not path.is_file():
            msg = f"{path}: expected an {_SUFFIX} file or a directory"
            raise RepositoryError(msg)
        return [ModelSource(name=path.stem, version=_ONLY_VERSION, path=path, config=config_beside(path))]
    found = list(_model(path)) or [source for folder in _folders(path) for source in _model(folder)]
    if not found:
        msg = f"{path}: expected an {_SUFFIX} file, VERSION/model.onnx or NAME/VERSION/model.onnx in it, found none"
        raise RepositoryError(msg)
    return found


def _require_name(source: ModelSource) -> None:
    """Refuse names that callers could not write: what cannot be seen, or is not UTF-8."""
    if not source.name or escaped(source.name) != source.name:
        msg = f"{source.path}: expected a model with a name of characters that can be seen, in UTF-8"
        raise RepositoryError(msg)


def config_beside(file: Path) -> Path | None:
    """Return the settings for the model in ``file``, if it is the one model of its directory and has any."""
    try:
        is_the_model = _model_file(file.parent) == file
    except RepositoryError:
        return None
    return _config_of_file(file) if is_the_model else None


def _config_of_file(file: Path) -> Path | None:
    """Return the settings in the directory of ``file``, or above it where that is one of a version."""
    folder = file.parent
    return _config_in(folder) or (_config_in(folder.parent) if folder.name.isdecimal() else None)


def _config_in(folder: Path) -> Path | None:
    config = folder / _CONFIG
    # Whatever it is: that a pipe or a link that leads nowhere cannot be read is for somebody to learn.
    return config if os.path.lexists(config) else None


def _model(folder: Path) -> Iterator[ModelSource]:
    """Yield the versions of the model in ``folder``; none if there is no model in it."""
    versions = {entry.name: entry for entry in _folders(folder) if entry.name.isdecimal()}
    file = _model_file(folder)
    if file is not None and versions:
        msg = f"{folder}: expected an {_SUFFIX} file or version directories, found {file.name} beside {min(versions)}"
        raise RepositoryError(msg)
    if file is not None:
        yield ModelSource(name=folder.name, version=_ONLY_VERSION, path=file, config=_config_of_file(file))
    for version, entry in sorted(versions.items(), key=lambda item: int(item[0])):
        file = _model_file(entry)
        if file is None:
            _log.warning("%s holds no %s file and is passed over", entry, _SUFFIX)
        else:
            yield ModelSource(name=folder.name, version=str(int(version)), path=file, config=_config_in(folder))


def _model_file(folder: Path) -> Path | None:
    files = sorted(entry for entry in _visible(folder) if entry.suffix == _SUFFIX and entry.is_file())
    if len(files) > 1:
        named = folder / f"model{_SUFFIX}"
        if named in files:
            return named
        msg = f"{folder}: expected one {_SUFFIX} file, found {', '.join(file.name for file in files)}"
        raise RepositoryError(msg)
    return files[0] if files else None


def _folders(folder: Path) -> list[Path]:
    return [entry for entry in _visible(folder) if entry.is_dir()]


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        msg = f"{folder}: {error.strerror}"
        raise RepositoryError(msg) from error

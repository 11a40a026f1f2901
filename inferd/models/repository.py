"""Find the model versions in the paths that a server is given. Looks at names only, and opens no file.

A model whose directory has a ``config.pbtxt`` counts whether or not its files look like a model's: loading it says what
is wrong. The same goes for one whose settings may name its file.

Names and neighbors are those of the given paths, even if they are links: caches, ConfigMaps and git-annex link
``model.onnx`` to a file named by its hash. Entries that cannot be accessed are skipped, and do not hide others.
"""

import logging
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from inferd.plain_text import escaped
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.genai_config import read_genai_config
from inferd.runtime.model_folder import GENAI_CONFIG, has_genai_config
from inferd.small_files import kind_of, why_unreadable

_log = logging.getLogger(__name__)

_SUFFIX = ".onnx"
_CONFIG = "model.yaml"
_TRITON_CONFIG = "config.pbtxt"
_ONLY_VERSION = "1"

#: An address as s3://bucket/models becomes it when it is taken for a path.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/(.*)")

#: Maximum number of skipped entries in an error about a directory without models.
_MAX_REASONS = 8


class RepositoryError(Exception):
    """A path does not have the layout of models. The message says what was found."""


class RemoteFiles(Protocol):
    """The files of a model in remote storage, at local paths."""

    def fetch(self, path: Path, is_cancelled: Callable[[], bool]) -> object:
        """Have the model file at ``path`` there, with the files that it needs; they stay as long as what is returned.

        Raises `ModelLoadError`; returns early if the load ``is_cancelled``.
        """

    def identity(self, path: Path) -> tuple[str, int, int, int]:
        """Return what differs once the content of the file at ``path`` does, without reading it."""

    def address(self, path: Path) -> str:
        """Return where the file at ``path`` comes from, without secrets."""

    def changed_at(self) -> float:
        """Return when one of the files was last changed, in seconds since the epoch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSource:
    """The file of one model version, and the files with the model's settings.

    ``config`` is its model.yaml, ``triton`` its config.pbtxt, if any. ``path`` need not exist where one of them may
    name another file (`model_file`). ``override`` is a config.pbtxt that was sent with a call, and precedes both.
    ``remote`` has the files of a model in remote storage, whose local paths hold nothing before they are fetched.
    """

    name: str
    version: str
    path: Path
    config: Path | None = None
    triton: Path | None = None
    override: Path | None = None
    remote: RemoteFiles | None = None

    @property
    def place(self) -> str:
        """Where an operator finds the file."""
        return str(self.path) if self.remote is None else self.remote.address(self.path)

    @property
    def is_immutable(self) -> bool:
        """Whether nobody changes the model's files once they are loaded, as those in the cache of remote storage."""
        return self.remote is not None


#: Returns the model versions at an address of remote storage, with calls of its second argument for skipped ones.
RemoteSources = Callable[[str, Callable[[str], None]], Sequence[ModelSource]]


def no_remote(address: str, _: Callable[[str], None]) -> Sequence[ModelSource]:
    """Refuse an ``address``, as where models are local."""
    raise RepositoryError(f"{address}: expected a local path")


def resolve(
    paths: Sequence[Path | str],
    warn: Callable[[str], None] = _log.warning,
    *,
    config_name: str = "",
    remote: RemoteSources = no_remote,
    only: str = "",
) -> list[ModelSource]:
    """Return the model versions in ``paths``, in their order. Raises `RepositoryError`.

    A path is an ``.onnx`` file, a directory with one, a model's directory ``NAME`` with ``VERSION/model.onnx``, or a
    repository of such directories. Hidden entries are ignored. The settings of a model are in its directory; in a
    directory with several models, they apply to none of them.

    A given path without models is an error. Below it, entries that cannot be read or do not have this layout are
    skipped, with a call of ``warn``. ``config_name`` is the setting ``repository.config_name``. Texts are addresses of
    ``remote`` storage. If a repository has a model of the name ``only``, its other models are not looked at.
    """
    sources: dict[tuple[str, str], ModelSource] = {}
    for given in paths:
        for source in remote(given, warn) if isinstance(given, str) else _local(given, warn, config_name, only):
            other = sources.setdefault((source.name, source.version), source)
            if not is_same_file(other, source):
                msg = f'model "{source.name}" version "{source.version}" exists twice: {other.place} and {source.place}'
                raise RepositoryError(msg)
    return list(sources.values())


def is_same_file(one: ModelSource, other: ModelSource) -> bool:
    """Whether both are the same file, by whatever path."""
    return one is other or os.path.realpath(one.path) == os.path.realpath(other.path)


def _local(given: Path, warn: Callable[[str], None], config_name: str, only: str) -> list[ModelSource]:
    name, path = split_name(given)
    _require_local(path)
    return named(name, path, _Search(warn, config_name, "" if name else only).sources(absolute_path(path)))


def _require_local(path: Path) -> None:
    """Raise `RepositoryError` for an address of remote storage, which Triton would take."""
    address = _ADDRESS.match(str(path))
    if address and not os.path.lexists(path):
        scheme, rest = address.groups()
        msg = f"{scheme}://{rest}: expected a local path: copy the models to this machine, or mount their storage"
        raise RepositoryError(msg)


def split_name(path: Path) -> tuple[str, Path]:
    """Return name and path of ``NAME=PATH``, and no name for a path that exists as it is."""
    name, separator, rest = str(path).partition("=")
    if not separator or os.sep in name or os.path.lexists(path):
        return "", path
    return name, Path(rest)


def named(name: str, place: Path | str, sources: list[ModelSource]) -> list[ModelSource]:
    """Return the ``sources`` of one model at ``place`` under another ``name``, if one is given."""
    if not name:
        return sources
    _require_name(place, name)
    _require_one(f"{name}={place}", sources)
    return [replace(source, name=name) for source in sources]


def highest_version(place: Path | str, sources: Sequence[ModelSource]) -> ModelSource:
    """Return the highest version of the only model at ``place``. Raises `RepositoryError`."""
    _require_one(place, sources)
    return max(sources, key=lambda source: int(source.version))


def _require_one(place: Path | str, sources: Sequence[ModelSource]) -> None:
    names = sorted({source.name for source in sources})
    if len(names) > 1:
        raise RepositoryError(f"{place}: expected one model, found {', '.join(names)}")


def model_file(source: ModelSource, name: str = "") -> Path:
    """Return the file to load, which is ``name`` in the directory of ``source`` if its settings say so.

    Its path may lead to a directory that holds the file beside its weights, as Triton allows. Raises `ModelLoadError`.
    """
    path = source.path.parent / name if name else source.path
    if not path.is_dir():
        return path if name or os.path.lexists(path) else _described_file(path.parent)
    return _only_file(path)


def _described_file(folder: Path) -> Path:
    """Return the file that a genai_config.json names, or else the only one. Raises `ModelLoadError`."""
    if not has_genai_config(folder):
        return _only_file(folder)
    name = read_genai_config(folder / f"model{_SUFFIX}").filename
    if name is None:
        msg = f"{GENAI_CONFIG}: expected model.decoder.filename, the name of the {_SUFFIX} file beside it, got none"
        raise ModelLoadError(msg)
    return folder / name


def _only_file(folder: Path) -> Path:
    try:
        file = _model_file(folder, _Search(lambda _: None).list_folder(folder).files)
    except RepositoryError as error:
        raise ModelLoadError(str(error)) from error
    if file is None:
        msg = f"{folder.name}: expected an {_SUFFIX} file in it, found none"
        raise ModelLoadError(msg)
    return file


def absolute_path(path: Path) -> Path:
    """Return ``path`` as an absolute path. Links are resolved only up to the last ``..``, which has no name itself."""
    parts = path.absolute().parts
    end = max((position for position, part in enumerate(parts, 1) if part == os.pardir), default=0)
    return Path(os.path.realpath(Path(*parts[:end])), *parts[end:]) if end else Path(*parts)


def _is_the_model(file: Path) -> bool:
    """Return whether ``file`` is the model of its directory, to which the settings there apply."""
    try:
        return _model_file(file.parent, _Search(lambda _: None).list_folder(file.parent).files) == file
    except _UnreadableError:
        # The neighbors are unknown. If the settings are unreadable too, loading the model reports it.
        return True
    except RepositoryError:
        return False


class _UnreadableError(RepositoryError):
    """A directory cannot be listed."""


@dataclass(frozen=True, slots=True)
class _Folder:
    """The entries of a directory: those named ``.onnx``, of any kind, and subdirectories."""

    path: Path
    files: Sequence[Path]
    folders: Sequence[Path]


class _Search:
    """Searches one given path. Skipped entries are reported at once, and collected for the error.

    ``only`` is the name of the model that is wanted; empty for all.
    """

    def __init__(self, warn: Callable[[str], None], config_name: str = "", only: str = "") -> None:
        self._warn = warn
        self._config_name = config_name
        self._only = only
        self._reasons: list[str] = []

    def sources(self, path: Path) -> list[ModelSource]:
        """Return the model versions at ``path``. Raises `RepositoryError` if there are none."""
        try:
            mode = _mode(path)
        except OSError as error:
            raise RepositoryError(_cannot_read(path, error)) from error
        if not stat.S_ISDIR(mode):
            return [_checked_file(path, mode)]
        folder = self.list_folder(path)
        found = list(self._model(folder))
        if not found:
            chosen = [each for each in folder.folders if each.name == self._only]
            found = self._models(chosen) or self._models(folder.folders)
        if not found:
            expected = f"expected an {_SUFFIX} file, VERSION/model.onnx or NAME/VERSION/model.onnx in it, found none"
            raise RepositoryError("; ".join([f"{path}: {expected}", *self._reasons[:_MAX_REASONS]]))
        return found

    def list_folder(self, path: Path) -> _Folder:
        """List a directory. Raises `RepositoryError` if it cannot be listed."""
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
                # An unreadable model file still counts: loading it fails, which the server reports.
                if not is_model:
                    self._skip(_cannot_read(entry, error))
            if is_model:
                files.append(entry)
        return _Folder(path, files, folders)

    def _models(self, folders: Sequence[Path]) -> list[ModelSource]:
        return [source for each in folders for source in self._model_or_skip(each)]

    def _model_or_skip(self, path: Path) -> list[ModelSource]:
        try:
            return list(self._model(self.list_folder(path)))
        except RepositoryError as error:
            self._skip(str(error))
            return []

    def _model(self, folder: _Folder) -> Iterator[ModelSource]:
        """Yield the versions of the model in ``folder``, if it has one."""
        name = folder.path.name
        versions = {entry.name: entry for entry in folder.folders if entry.name.isdecimal()}
        triton = self._triton_config(folder.path)
        file = _model_file(folder.path, folder.files)
        if file is None and not versions and triton is None:
            return
        _require_name(folder.path, name)
        if file is None:
            # A directory of Triton's without versions: loading it says so.
            versions = versions or {_ONLY_VERSION: folder.path / _ONLY_VERSION}
            yield from self._versions(name, versions, _file_in(folder.path, _CONFIG), triton)
            return
        if versions:
            found = f"found {file.name} beside {min(versions)}"
            raise RepositoryError(f"{folder.path}: expected an {_SUFFIX} file or version directories, {found}")
        yield ModelSource(
            name=name, version=_ONLY_VERSION, path=file, config=_config_of_file(file, _CONFIG), triton=triton
        )

    def _triton_config(self, folder: Path) -> Path | None:
        """Return the config.pbtxt of a model, or the one that the settings name in place of it."""
        named = _file_in(folder / "configs", f"{self._config_name}.pbtxt") if self._config_name else None
        return named or _file_in(folder, _TRITON_CONFIG)

    def _versions(
        self, name: str, versions: dict[str, Path], config: Path | None, triton: Path | None
    ) -> Iterator[ModelSource]:
        is_configured = config is not None or triton is not None
        for version, path in sorted(versions.items(), key=lambda item: int(item[0])):
            file = self._version_file(path, may_be_named=is_configured)
            if file is not None:
                yield ModelSource(name=name, version=str(int(version)), path=file, config=config, triton=triton)

    def _version_file(self, path: Path, *, may_be_named: bool) -> Path | None:
        """Return the file in a version's directory; if its name may be in the settings, it need not be there."""
        try:
            file = _model_file(path, self.list_folder(path).files)
        except RepositoryError as error:
            if may_be_named:
                return path / f"model{_SUFFIX}"
            self._skip(str(error))
            return None
        if file is None and may_be_named:
            return path / f"model{_SUFFIX}"
        if file is None:
            self._skip(f"{path}: expected an {_SUFFIX} file in it, found none")
        return file

    def _skip(self, reason: str) -> None:
        self._reasons.append(reason)
        self._warn(escaped(f"skipped: {reason}"))


def _checked_file(path: Path, mode: int) -> ModelSource:
    if path.suffix != _SUFFIX or not stat.S_ISREG(mode):
        found = "" if stat.S_ISREG(mode) else f", found {kind_of(mode)}"
        raise RepositoryError(f"{path}: expected an {_SUFFIX} file or a directory{found}")
    _require_name(path, path.stem)
    return source_of_file(path)


def source_of_file(path: Path) -> ModelSource:
    """Return the model in the file at ``path``, with the settings beside it if they are its own."""
    is_the_model = _is_the_model(path)
    return ModelSource(
        name=path.stem,
        version=_ONLY_VERSION,
        path=path,
        config=_config_of_file(path, _CONFIG) if is_the_model else None,
        triton=_config_of_file(path, _TRITON_CONFIG) if is_the_model else None,
    )


def _require_name(path: Path | str, name: str) -> None:
    """Reject names with invisible characters, and names that are not UTF-8: callers could not send them."""
    if not name or escaped(name) != name:
        raise RepositoryError(f"{path}: expected a model name of printable characters in UTF-8")


def _model_file(folder: Path, files: Sequence[Path]) -> Path | None:
    """Return the model among the ``files`` in ``folder``; None if there are none.

    Of several files of a language model, its genai_config.json says which one it is.
    """
    named = folder / f"model{_SUFFIX}"
    if len(files) > 1 and named not in files and not has_genai_config(folder):
        names = ", ".join(file.name for file in files)
        raise RepositoryError(f"{folder}: expected one {_SUFFIX} file, found {names}")
    return named if len(files) > 1 else next(iter(files), None)


def _config_of_file(file: Path, name: str) -> Path | None:
    """Return the file ``name`` in the directory of ``file``, or in its parent if that is a version directory."""
    folder = file.parent
    return _file_in(folder, name) or (_file_in(folder.parent, name) if folder.name.isdecimal() else None)


def _file_in(folder: Path, name: str) -> Path | None:
    file = folder / name
    try:
        file.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        # Loading the model reports that it is unreadable, as for a dangling link.
        return file
    return file


def _mode(path: Path) -> int:
    """Return the mode of the file at ``path``, with links followed. Raises `OSError`."""
    try:
        return path.stat().st_mode
    except ValueError as error:
        raise OSError(str(error)) from error


def _cannot_read(path: Path, error: OSError) -> str:
    return f"{path}: {why_unreadable(path, error)}"

"""Find the model versions in the paths that a server is given. Looks at names only, and opens no file.

A model whose directory has a ``config.pbtxt`` counts whether or not its files look like a model's: loading it says what
is wrong. The same goes for one whose settings may name its file. Entries that cannot be accessed are skipped, and do
not hide others.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from inferd.models.model_directory import (
    MODEL_YAML,
    SUFFIX,
    TRITON_CONFIG,
    Directory,
    RepositoryError,
    cannot_read,
    config_of,
    file_in,
    file_mode,
    list_directory,
)
from inferd.models.model_source import ONLY_VERSION, ModelSource, is_same_file, source_of_file
from inferd.plain_text import escaped
from inferd.small_files import kind_of

_log = logging.getLogger(__name__)

#: An address as s3://bucket/models becomes it when it is taken for a path.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/(.*)")

#: Maximum number of skipped entries in an error about a directory without models.
_MAX_REASONS = 8

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
    ``remote`` storage. If a repository has a model of the name ``only``, its other models are skipped.
    """
    sources: dict[tuple[str, str], ModelSource] = {}
    for given in paths:
        for source in remote(given, warn) if isinstance(given, str) else _local(given, warn, config_name, only):
            other = sources.setdefault((source.name, source.version), source)
            if not is_same_file(other, source):
                msg = f'model "{source.name}" version "{source.version}" exists twice: {other.place} and {source.place}'
                raise RepositoryError(msg)
    return list(sources.values())


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


def absolute_path(path: Path) -> Path:
    """Return ``path`` as an absolute path. Links are resolved only up to the last ``..``, which has no name itself."""
    parts = path.absolute().parts
    end = max((position for position, part in enumerate(parts, 1) if part == os.pardir), default=0)
    return Path(os.path.realpath(Path(*parts[:end])), *parts[end:]) if end else Path(*parts)


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
            mode = file_mode(path)
        except OSError as error:
            raise RepositoryError(cannot_read(path, error)) from error
        if not S_ISDIR(mode):
            return [_checked_file(path, mode)]
        folder = list_directory(path, self._skip)
        found = list(self._model(folder))
        if not found:
            chosen = [each for each in folder.folders if each.name == self._only]
            found = self._models(chosen) or self._models(folder.folders)
        if not found:
            expected = f"expected an {SUFFIX} file, VERSION/model.onnx or NAME/VERSION/model.onnx in it, found none"
            raise RepositoryError("; ".join([f"{path}: {expected}", *self._reasons[:_MAX_REASONS]]))
        return found

    def _models(self, folders: Sequence[Path]) -> list[ModelSource]:
        return [source for each in folders for source in self._model_or_skip(each)]

    def _model_or_skip(self, path: Path) -> list[ModelSource]:
        try:
            return list(self._model(list_directory(path, self._skip)))
        except RepositoryError as error:
            self._skip(str(error))
            return []

    def _model(self, folder: Directory) -> Iterator[ModelSource]:
        """Yield the versions of the model in ``folder``, if it has one."""
        name = folder.path.name
        versions = {entry.name: entry for entry in folder.folders if entry.name.isdecimal()}
        triton = self._triton_config(folder.path)
        file = folder.model_file()
        if file is None and not versions and triton is None:
            return
        _require_name(folder.path, name)
        if file is None:
            # A directory of Triton's without versions: loading it says so.
            versions = versions or {ONLY_VERSION: folder.path / ONLY_VERSION}
            yield from self._versions(name, versions, file_in(folder.path, MODEL_YAML), triton)
            return
        if versions:
            found = f"found {file.name} beside {min(versions)}"
            raise RepositoryError(f"{folder.path}: expected an {SUFFIX} file or version directories, {found}")
        yield ModelSource(name=name, version=ONLY_VERSION, path=file, config=config_of(file, MODEL_YAML), triton=triton)

    def _triton_config(self, folder: Path) -> Path | None:
        """Return the config.pbtxt of a model, or the one that the settings name in place of it."""
        named = file_in(folder / "configs", f"{self._config_name}.pbtxt") if self._config_name else None
        return named or file_in(folder, TRITON_CONFIG)

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
            file = list_directory(path, self._skip).model_file()
        except RepositoryError as error:
            if may_be_named:
                return path / f"model{SUFFIX}"
            self._skip(str(error))
            return None
        if file is None and may_be_named:
            return path / f"model{SUFFIX}"
        if file is None:
            self._skip(f"{path}: expected an {SUFFIX} file in it, found none")
        return file

    def _skip(self, reason: str) -> None:
        self._reasons.append(reason)
        self._warn(escaped(f"skipped: {reason}"))


def _checked_file(path: Path, mode: int) -> ModelSource:
    if path.suffix != SUFFIX or not S_ISREG(mode):
        found = "" if S_ISREG(mode) else f", found {kind_of(mode)}"
        raise RepositoryError(f"{path}: expected an {SUFFIX} file or a directory{found}")
    _require_name(path, path.stem)
    return source_of_file(path)


def _require_name(path: Path | str, name: str) -> None:
    """Reject names with invisible characters, and names that are not UTF-8: callers could not send them."""
    if not name or escaped(name) != name:
        raise RepositoryError(f"{path}: expected a model name of printable characters in UTF-8")

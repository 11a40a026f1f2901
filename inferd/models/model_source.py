"""Where a model version comes from: its file, and the files with its settings."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from inferd.models.model_directory import (
    MODEL_YAML,
    SUFFIX,
    TRITON_CONFIG,
    RepositoryError,
    UnreadableDirectoryError,
    config_of,
    list_directory,
)
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.genai_config import read_genai_config
from inferd.runtime.model_folder import GENAI_CONFIG, has_genai_config

#: The version of a model without version directories.
ONLY_VERSION = "1"


class RemoteFiles(Protocol):
    """The files of a model in remote storage, at local paths."""

    def fetch(self, path: Path, is_cancelled: Callable[[], bool]) -> object:
        """Fetch the model file at ``path`` and the files that it needs; they stay as long as the returned object.

        Raises `ModelLoadError`; returns early if the load ``is_cancelled``.
        """

    def identity(self, path: Path) -> tuple[str, int, int, int]:
        """Return the identity of the content of the file at ``path``, without reading it."""

    def address(self, path: Path) -> str:
        """Return the address of the file at ``path``, without secrets."""

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
        """The path or address of the file, for operators."""
        return str(self.path) if self.remote is None else self.remote.address(self.path)

    @property
    def is_immutable(self) -> bool:
        """True if the model's files never change once they are loaded, as in the cache of remote storage."""
        return self.remote is not None


def source_of_file(path: Path) -> ModelSource:
    """Return the model in the file at ``path``, with the settings beside it if they are its own."""
    is_the_model = _is_the_model(path)
    return ModelSource(
        name=path.stem,
        version=ONLY_VERSION,
        path=path,
        config=config_of(path, MODEL_YAML) if is_the_model else None,
        triton=config_of(path, TRITON_CONFIG) if is_the_model else None,
    )


def _is_the_model(file: Path) -> bool:
    """Return True if ``file`` is the model of its directory, to which the settings there apply."""
    try:
        return list_directory(file.parent).model_file() == file
    except UnreadableDirectoryError:
        # The neighbors are unknown. If the settings are unreadable too, loading the model reports it.
        return True
    except RepositoryError:
        return False


def is_same_file(one: ModelSource, other: ModelSource) -> bool:
    """Return True if both are the same file, by different paths or one."""
    return one is other or os.path.realpath(one.path) == os.path.realpath(other.path)


def model_file(source: ModelSource, name: str = "") -> Path:
    """Return the file to load: ``name`` in the directory of ``source`` if the settings give one, or else its path.

    The path may be a directory that holds the file beside its weights, as Triton allows. Raises `ModelLoadError`.
    """
    path = source.path.parent / name if name else source.path
    if not path.is_dir():
        return path if name or os.path.lexists(path) else _described_file(path.parent)
    return _only_file(path)


def _described_file(folder: Path) -> Path:
    """Return the file that a genai_config.json names, or else the only one. Raises `ModelLoadError`."""
    if not has_genai_config(folder):
        return _only_file(folder)
    name = read_genai_config(folder / f"model{SUFFIX}").filename
    if name is None:
        msg = f"{GENAI_CONFIG}: expected model.decoder.filename, the name of the {SUFFIX} file beside it, got none"
        raise ModelLoadError(msg)
    return folder / name


def _only_file(folder: Path) -> Path:
    try:
        file = list_directory(folder).model_file()
    except RepositoryError as error:
        raise ModelLoadError(str(error)) from error
    if file is None:
        msg = f"{folder.name}: expected an {SUFFIX} file in it, found none"
        raise ModelLoadError(msg)
    return file

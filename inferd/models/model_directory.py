"""Read one directory of a repository: its model file, its settings files, and the directories below it.

Looks at names only, and opens no file. Names and neighbors are those of the given paths, even if they are links:
caches, ConfigMaps and git-annex link ``model.onnx`` to a file named by its hash.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR

from inferd.runtime.model_folder import has_genai_config
from inferd.small_files import why_unreadable

SUFFIX = ".onnx"
MODEL_YAML = "model.yaml"
TRITON_CONFIG = "config.pbtxt"


class RepositoryError(Exception):
    """A path does not have the layout of models. The message says what was found."""


class UnreadableDirectoryError(RepositoryError):
    """A directory cannot be listed."""


@dataclass(frozen=True, slots=True)
class Directory:
    """The entries of a directory: those named ``.onnx``, of any kind, and subdirectories."""

    path: Path
    files: Sequence[Path]
    folders: Sequence[Path]

    def model_file(self) -> Path | None:
        """Return the model in the directory; None if it has none. Raises `RepositoryError` if it has several.

        Of several files of a language model, its genai_config.json says which one it is.
        """
        named = self.path / f"model{SUFFIX}"
        if len(self.files) > 1 and named not in self.files and not has_genai_config(self.path):
            names = ", ".join(file.name for file in self.files)
            raise RepositoryError(f"{self.path}: expected one {SUFFIX} file, found {names}")
        return named if len(self.files) > 1 else next(iter(self.files), None)


def _ignore(_: str) -> None:
    pass


def list_directory(path: Path, skip: Callable[[str], None] = _ignore) -> Directory:
    """List the directory ``path`` without hidden entries; calls ``skip`` for entries that cannot be accessed.

    Raises `UnreadableDirectoryError`.
    """
    try:
        entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise UnreadableDirectoryError(cannot_read(path, error)) from error
    files, folders = [], []
    for entry in entries:
        is_model = entry.suffix == SUFFIX
        try:
            if S_ISDIR(file_mode(entry)):
                folders.append(entry)
                continue
        except OSError as error:
            # An unreadable model file still counts: loading it fails, which the server reports.
            if not is_model:
                skip(cannot_read(entry, error))
        if is_model:
            files.append(entry)
    return Directory(path, files, folders)


def config_of(file: Path, name: str) -> Path | None:
    """Return the file ``name`` in the directory of ``file``, or in its parent if that is a version directory."""
    folder = file.parent
    return file_in(folder, name) or (file_in(folder.parent, name) if folder.name.isdecimal() else None)


def file_in(folder: Path, name: str) -> Path | None:
    """Return the file ``name`` in ``folder``; None if there is none."""
    file = folder / name
    try:
        file.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        # Loading the model reports that it is unreadable, as for a dangling link.
        return file
    return file


def file_mode(path: Path) -> int:
    """Return the mode of the file at ``path``, with links followed. Raises `OSError`."""
    try:
        return path.stat().st_mode
    except ValueError as error:
        raise OSError(str(error)) from error


def cannot_read(path: Path, error: OSError) -> str:
    """Return the text of an error about ``path``."""
    return f"{path}: {why_unreadable(path, error)}"

"""Fingerprints of model versions: they differ once a file of the version does. No file is read."""

import os
import stat
from collections.abc import Hashable, Iterator
from itertools import chain, islice
from pathlib import Path

from inferd.models.model_source import ModelSource
from inferd.runtime.model_folder import has_genai_config

#: Path, size and times of each file; comparable, and of no other use.
Fingerprint = frozenset[tuple[str, int, int, int]]

#: Directories in the directory of a model, other than its versions, whose files belong to it, as in Triton.
_SHARED_FOLDERS = ("warmup",)

#: Maximum number of files in a fingerprint: a version's directory may link to all of a disk.
_MAX_FILES = 10_000


def fingerprint_of(source: ModelSource) -> Fingerprint:
    """Return the fingerprint of all files of one version: in its directory and below, and those of its model.

    The latter are in the directory around that of the version: settings, labels, inputs for warm-up. Links are
    followed. Hidden entries do not count, as uploads have them before they are renamed. In a directory with several
    models, the files of each begin with its name. A file that cannot be read counts with its error.
    """
    settings = (path for path in (source.config, source.triton) if path is not None)
    entry = _entry if source.remote is None else source.remote.identity
    return frozenset(map(entry, islice(chain(settings, _files_of(source)), _MAX_FILES)))


def _files_of(source: ModelSource) -> Iterator[Path]:
    folder = source.path.parent
    if folder.name.isdecimal():
        yield from _files(folder.parent, recursively=False)
        for name in _SHARED_FOLDERS:
            yield from _files(folder.parent / name)
    elif _has_several_models(folder, source.path.suffix):
        yield from (path for path in _files(folder, recursively=False) if path.name.startswith(source.path.stem))
        return
    yield from _files(folder)


def _has_several_models(folder: Path, suffix: str) -> bool:
    """Return True if ``folder`` has several model files that are not parts of one language model."""
    if has_genai_config(folder):
        return False
    return sum(path.suffix == suffix for path in _files(folder, recursively=False)) > 1


def _files(folder: Path, *, recursively: bool = True, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield the files in ``folder``, or ``folder`` if it cannot be listed. ``above`` are the directories around it."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except FileNotFoundError:
        return
    except OSError:
        yield folder
        return
    here = os.path.realpath(folder)
    for entry in entries:
        if not _is_folder(entry):
            yield entry
        elif recursively and here not in above:  # a link may lead to where it is
            yield from _files(entry, above=(*above, here))


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False


def _entry(path: Path) -> tuple[str, int, int, int]:
    """Return path, size, and times of the last change of data and of properties of a file.

    Programs may set the former time, but not the latter, which also changes with a file that replaces this one. The
    inode number would not help: some file systems change numbers.
    """
    try:
        found = path.stat()
    except OSError as error:
        return str(path), -(error.errno or 1), 0, 0
    return str(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns


def load_fingerprint(source: ModelSource) -> Hashable:
    """Return the fingerprint of a load; one with files or a configuration from a call never equals another load's."""
    return fingerprint_of(source) if source.override is None else source.override

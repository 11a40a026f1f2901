"""Locates the external weight files of a model, and passes them to ONNX Runtime if it would reject symbolic links.

ONNX Runtime opens a weight file by itself if its resolved path is in the directory of the model's path or in that of
the resolved path, as in Hugging Face caches and ConfigMaps. It rejects links to elsewhere, such as those of git-annex
and DVC; the contents of these files are passed in memory.
"""

import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from inferd.runtime.errors import ModelLoadError
from inferd.runtime.runners import OrtObject
from inferd.small_files import open_file, why_unreadable


@dataclass(frozen=True, slots=True)
class ExternalWeights:
    """Weight files by their names in the model. ``in_memory``: ONNX Runtime rejects them, so contents are passed."""

    files: Mapping[str, Path] = field(default_factory=dict)
    in_memory: bool = False

    @contextmanager
    def given_to(self, options: OrtObject) -> Iterator[None]:
        """Context in which a session opened with ``options`` finds the weights. Raises `OSError`."""
        if not self.in_memory:
            yield
            return
        with ExitStack() as opened:
            contents = [opened.enter_context(_content(path)) for path in self.files.values()]
            # ONNX Runtime copies what it needs, and takes all files in this way or none.
            options.add_external_initializers_from_files_in_memory(list(self.files), contents, list(map(len, contents)))
            yield


#: A model with all weights in its own file.
NO_WEIGHTS = ExternalWeights()


def find_weights(model: Path, names: Iterable[str]) -> ExternalWeights:
    """Locate the weight files ``names`` of ``model``. Raises `ModelLoadError` for one that cannot be read."""
    files = {name: _located(model, name) for name in sorted(names)}
    allowed = [Path(os.path.realpath(model.parent)), Path(os.path.realpath(model)).parent]
    in_memory = not all(
        path == model.parent / name and any(Path(os.path.realpath(path)).is_relative_to(folder) for folder in allowed)
        for name, path in files.items()
    )
    return ExternalWeights(files, in_memory)


def _located(model: Path, name: str) -> Path:
    """Return the file beside ``model``, or else beside the target of the link ``model``."""
    if not name or os.path.isabs(name) or os.path.normpath(name).startswith(os.pardir):  # noqa: PTH117  (no path yet)
        msg = f'{model.name} has its weights in "{name}", expected a file beside it or below'
        raise ModelLoadError(msg)
    beside = model.parent / name
    reason = _why_not(beside)
    behind = Path(os.path.realpath(model)).parent / name
    if reason is None or (behind != beside and not os.path.lexists(beside) and _why_not(behind) is None):
        return beside if reason is None else behind
    msg = f"{model.name} has its weights in {PurePath(name)}: {reason}"
    raise ModelLoadError(msg)


def _why_not(path: Path) -> str | None:
    """Return why ``path`` cannot be read; None if it can."""
    try:
        open_file(path).close()
    except OSError as error:
        return why_unreadable(path, error)
    return None


@contextmanager
def _content(path: Path) -> Iterator[mmap.mmap]:
    with open_file(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content

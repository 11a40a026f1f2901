"""Finds the files in which a model keeps its weights, and has ONNX Runtime take them from wherever links lead.

ONNX Runtime opens such a file by itself if it is, with all links followed, in the directory of the model's path or in
the one that this path leads to. So it does for the caches of Hugging Face and for ConfigMaps. It refuses those that
git-annex, DVC or a person linked to from elsewhere; the contents of these are handed to it.
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
    """The files by the names that the model has for them. ``handed_over``: ONNX Runtime would not open them itself."""

    files: Mapping[str, Path] = field(default_factory=dict)
    handed_over: bool = False

    @contextmanager
    def given_to(self, options: OrtObject) -> Iterator[None]:
        """Make a session that is opened meanwhile with ``options`` find the weights. Raises `OSError`."""
        if not self.handed_over:
            yield
            return
        with ExitStack() as opened:
            contents = [opened.enter_context(_content(path)) for path in self.files.values()]
            # It copies what it needs, and takes all files in this way or none.
            options.add_external_initializers_from_files_in_memory(list(self.files), contents, list(map(len, contents)))
            yield


#: Those of a model whose weights are in its own file.
NO_WEIGHTS = ExternalWeights()


def find_weights(model: Path, names: Iterable[str]) -> ExternalWeights:
    """Return the files that ``model`` calls ``names``. Raises `ModelLoadError` for one that cannot be read."""
    files = {name: _located(model, name) for name in sorted(names)}
    allowed = [Path(os.path.realpath(model.parent)), Path(os.path.realpath(model)).parent]
    handed_over = not all(
        path == model.parent / name and any(Path(os.path.realpath(path)).is_relative_to(folder) for folder in allowed)
        for name, path in files.items()
    )
    return ExternalWeights(files, handed_over)


def _located(model: Path, name: str) -> Path:
    """Return the file beside ``model``, or else beside the file that it is a link to."""
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
    """Say why ``path`` cannot be read; None if it can."""
    try:
        open_file(path).close()
    except OSError as error:
        return why_unreadable(path, error)
    return None


@contextmanager
def _content(path: Path) -> Iterator[mmap.mmap]:
    with open_file(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content

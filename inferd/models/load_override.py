"""Model files and configurations that a call sends with a load, in temporary directories.

A directory is deleted with its load. Those of a process that was killed are deleted when the next one starts.
"""

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from google.protobuf import text_format

from inferd.errors import InvalidInputError
from inferd.models.catalog import Versions
from inferd.models.model_directory import RepositoryError
from inferd.models.repository import resolve
from inferd.models.triton import TritonConfigError, config_from_json, require_own_files

_log = logging.getLogger(__name__)

_PREFIX = "inferd-load-"

#: VERSION and NAME.
_FILE_PARTS = 2


@dataclass(frozen=True, slots=True)
class LoadOverride:
    """The configuration and the files that a call sends with a load.

    ``config`` is the JSON of a Triton ModelConfig, in place of the model's config.pbtxt. ``files`` are contents by
    ``VERSION/NAME``; if there are any, they are the only files of the model.
    """

    config: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)


class OverriddenModel:
    """The versions of a model with the overrides of a call, in a temporary directory until `delete`."""

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


class TemporaryFolder:
    """A temporary directory, locked until `delete`: that shows that its process lives."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def delete(self) -> None:
        """Delete the directory with its content."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._descriptor)


def delete_leftovers() -> None:
    """Delete the directories that no process has locked: theirs has ended without deleting them."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # in use, or another user's
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
            finally:
                os.close(descriptor)

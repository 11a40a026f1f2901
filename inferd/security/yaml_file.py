"""Reads the YAML files of this package, and says what is wrong with one without quoting it."""

from collections.abc import Collection
from pathlib import Path

from inferd import small_files
from inferd.config.yaml_text import RepeatedKeyError, YamlError, read_yaml
from inferd.security.files import BadFileError


def read_text(path: Path) -> str:
    """Return the text of ``path``, or raise `BadFileError`."""
    try:
        return small_files.read_text(path)
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadFileError(f"{path}: expected UTF-8 text") from None


def parse_yaml(text: str, path: Path, keys: Collection[str] = ()) -> object:
    """Return what ``text``, the content of ``path``, says, or raise `BadFileError`.

    A key that stands twice is named if it is one of ``keys``; another may be a secret in the wrong place.
    """
    try:
        _, content = read_yaml(text)
    except YamlError as error:
        where = f"{path} line {error.line}" if error.line else str(path)
        if not isinstance(error, RepeatedKeyError):
            raise BadFileError(f"{where}: expected YAML") from None
        key = error.key if error.key in keys else "a key"
        raise BadFileError(f"{where}: expected {key} once, got it on line {error.first_line} already") from None
    return content

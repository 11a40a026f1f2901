"""Reads the YAML files of this package, and says what is wrong with one without quoting it."""

from pathlib import Path

import yaml

from inferd.security.files import BadFileError


def read_text(path: Path) -> str:
    """Return the text of ``path``, or raise `BadFileError`."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadFileError(f"{path}: expected UTF-8 text") from None


def parse_yaml(text: str, path: Path) -> object:
    """Return what ``text``, the content of ``path``, says, or raise `BadFileError`."""
    try:
        # The pure Python loader, slow as it is: the one in C crashes the process if a file is nested deeply enough.
        content: object = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadFileError(f"{path} line {mark.line + 1 if mark else '?'}: expected YAML") from None
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: dates that do not exist
        raise BadFileError(f"{path}: expected YAML") from None
    return content

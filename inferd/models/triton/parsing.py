"""Parse the text of a config.pbtxt, and the JSON of a load's override."""

from pathlib import Path

from google.protobuf import json_format, text_format

from inferd._generated.inference import model_config_pb2 as pb
from inferd.models.triton.errors import TritonConfigError
from inferd.models.triton.hints import Fault, likely_fix, unfilled_template
from inferd.small_files import read_text, why_unreadable

#: More than any configuration needs; the parser is slow.
_MAX_BYTES = 1024 * 1024

#: JSON of more levels is refused: no configuration needs as many.
_MAX_LEVELS = 32


def read_config(path: Path) -> pb.ModelConfig:
    """Read a ``config.pbtxt``. Raises `TritonConfigError` with the file, the line and, if known, the likely fix."""
    return parse_config(path.name, read_config_text(path))


def read_config_text(path: Path) -> str:
    """Return the text of a ``config.pbtxt``. Raises `TritonConfigError` with the file."""
    try:
        return read_text(path, _MAX_BYTES).removeprefix("\ufeff")
    except OSError as error:
        raise TritonConfigError(f"{path.name} cannot be read: {why_unreadable(path, error)}") from error
    except UnicodeDecodeError as error:
        raise TritonConfigError(f"{path.name}: expected UTF-8 text") from error


def parse_config(name: str, text: str) -> pb.ModelConfig:
    """Parse the ``text`` of the file ``name``. Raises as `read_config`."""
    parsed = _parsed(text)
    if isinstance(parsed, Fault):
        raise TritonConfigError(f"{name} line {parsed.line}: {parsed.text}")
    return parsed


def _parsed(text: str) -> pb.ModelConfig | Fault:
    # In quotes, a placeholder would parse.
    template = unfilled_template(text)
    if template is not None:
        return template
    try:
        return text_format.Parse(text, pb.ModelConfig())
    except text_format.ParseError as error:
        return likely_fix(error, text)


def config_from_json(text: str) -> pb.ModelConfig:
    """Parse the JSON of a load's override. Raises `TritonConfigError`."""
    try:
        config = json_format.Parse(text, pb.ModelConfig(), max_recursion_depth=_MAX_LEVELS)
    except (json_format.ParseError, RecursionError) as error:
        # The next lines are a list of all fields.
        reason = str(error).partition("\n")[0].rstrip(". ")
        raise TritonConfigError(f"Invalid config override: {reason}") from error
    # The parser takes an empty list for an empty object.
    if not text.lstrip().startswith("{"):
        raise TritonConfigError("Invalid config override: expected an object in braces")
    return config

"""Inputs as they are typed: NAME=JSON, NAME=@FILE.json or NAME=@FILE.npy."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferd.cli.failures import CommandError, ExitCode
from inferd.cli.json_tensor import to_array
from inferd.client import ModelInfo


def read_inputs(arguments: Sequence[str], describe: Callable[[], ModelInfo]) -> dict[str, NDArray[np.generic]]:
    """Read every input. ``describe`` is asked once, and only if there is JSON, whose element type the model tells."""
    given = dict(_named(argument) for argument in arguments)
    if len(given) < len(arguments):
        raise _usage("--input: expected each name once")
    arrays = {name: _npy(Path(text[1:])) for name, text in given.items() if _is_npy(text)}
    values = {name: _json(name, text) for name, text in given.items() if name not in arrays}
    if values:
        arrays |= _typed(values, describe())
    return {name: arrays[name] for name in given}


def _named(argument: str) -> tuple[str, str]:
    name, separator, text = argument.partition("=")
    if not (name and separator and text):
        raise _usage(f'--input: expected NAME=JSON, NAME=@FILE.json or NAME=@FILE.npy, got "{argument}"')
    return name, text


def _is_npy(text: str) -> bool:
    return text.startswith("@") and text.endswith(".npy")


def _npy(file: Path) -> NDArray[np.generic]:
    try:
        # Without pickles, which can hold any code.
        array: NDArray[np.generic] = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _unreadable(file, error) from None
    return array


def _json(name: str, text: str) -> object:
    origin = f'input "{name}"'
    try:
        if text.startswith("@"):
            origin = text[1:]
            text = Path(origin).read_text(encoding="utf-8")
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _usage(f"{origin}: expected JSON, got something else: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(Path(origin), error) from None


def _typed(values: dict[str, Any], model: ModelInfo) -> dict[str, NDArray[np.generic]]:
    if not model.inputs:
        reason = f": {model.reason}" if model.reason else ""
        raise CommandError(f'the inputs of model "{model.name}" are not known, its state is {model.state}{reason}')
    specs = {spec.name: spec for spec in model.inputs}
    unknown = [name for name in values if name not in specs]
    if unknown:
        raise _usage(f'input "{unknown[0]}": the model has no such input, it has {", ".join(specs)}')
    try:
        return {name: to_array(specs[name], value) for name, value in values.items()}
    except ValueError as error:
        raise _usage(str(error)) from None


def _unreadable(file: Path, error: Exception) -> CommandError:
    return _usage(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}")


def _usage(message: str) -> CommandError:
    return CommandError(message, ExitCode.USAGE)

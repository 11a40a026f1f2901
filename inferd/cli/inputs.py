"""Inputs as they are typed: NAME=JSON, NAME=@FILE.json or NAME=@FILE.npy, and requests that are recorded in a file."""

import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inferd import recorded_requests
from inferd.cli.failures import CommandError, ExitCode
from inferd.client import ModelInfo, ModelState
from inferd.dtypes import BY_NAME
from inferd.recorded_requests import InputForm, RecordedRequestsError
from inferd.small_files import open_file, read_text

Arrays = dict[str, NDArray[np.generic]]

#: More than any message takes.
_MOST_JSON_BYTES = 2**31

_EXAMPLE = re.compile(r"(?P<file>.*\.(json|npz))(:(?P<number>[0-9]{1,9}))?", re.DOTALL)


def read_inputs(arguments: Sequence[str], example: str | None, describe: Callable[[], ModelInfo]) -> Arrays:
    """Read the recorded request that ``example``, FILE or FILE:NUMBER, names, and the inputs that replace some of it.

    ``describe`` is asked once, and only if there is JSON or an example, whose element types the model tells.
    """
    given = dict(_named(argument) for argument in arguments)
    if len(given) < len(arguments):
        raise _usage("--input: expected each name once")
    describe = cache(describe)
    recorded = _recorded(example, describe) if example else {}
    arrays = {name: _npy(Path(text[1:])) for name, text in given.items() if _is_npy(text)}
    values = {name: _json(name, text) for name, text in given.items() if name not in arrays}
    if values:
        arrays |= _typed(values, describe())
    return recorded | {name: arrays[name] for name in given}


def _named(argument: str) -> tuple[str, str]:
    name, separator, text = argument.partition("=")
    if not (name and separator and text):
        raise _usage(f'--input: expected NAME=JSON, NAME=@FILE.json or NAME=@FILE.npy, got "{argument}"')
    return name, text


def _recorded(example: str, describe: Callable[[], ModelInfo]) -> Arrays:
    path, number = _numbered(example)
    forms = _forms(describe())
    # Whether inputs agree on their dimensions is for the server to judge: the model's settings may say that they need
    # not, and it does not tell.
    named = {size for form in forms for size in form.shape if isinstance(size, str)}
    try:
        requests = recorded_requests.read(path, forms, loose_dimensions=named)
    except RecordedRequestsError as error:
        raise _usage(str(error)) from None
    if number >= len(requests):
        raise _usage(f"--example: expected a number from 0 to {len(requests) - 1} for {path.name}, got {number}")
    return requests[number]


def _numbered(example: str) -> tuple[Path, int]:
    match = _EXAMPLE.fullmatch(example)
    if match is None:
        raise _usage(f'--example: expected FILE.json, FILE.npz or one of them with :NUMBER, got "{example}"')
    return Path(match["file"]), int(match["number"] or 0)


def _is_npy(text: str) -> bool:
    return text.startswith("@") and text.endswith(".npy")


def _npy(file: Path) -> NDArray[np.generic]:
    try:
        # Without pickles, which can hold any code.
        with open_file(file) as opened:
            array: NDArray[np.generic] = np.load(opened, allow_pickle=False)
    except Exception as error:  # noqa: BLE001  (a damaged file can fail in any way, and all mean the same)
        raise _unreadable(file, error) from None
    if not isinstance(array, np.ndarray):
        raise _usage(f"{file}: expected one array, got an archive")
    return array


def _json(name: str, text: str) -> object:
    origin = f'input "{name}"'
    try:
        if text.startswith("@"):
            origin = text[1:]
            text = read_text(Path(origin), _MOST_JSON_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(Path(origin), error) from None
    try:
        return recorded_requests.parse_json(text)
    except ValueError as error:
        raise _usage(f"{origin}: {error}") from None


def _typed(values: dict[str, object], model: ModelInfo) -> Arrays:
    forms = {form.name: form for form in _forms(model)}
    unknown = [name for name in values if name not in forms]
    if unknown:
        raise _usage(f'input "{unknown[0]}": the model has no such input, it has {", ".join(forms) or "none"}')
    try:
        return {name: recorded_requests.from_json(forms[name], value) for name, value in values.items()}
    except ValueError as error:
        raise _usage(str(error)) from None


def _forms(model: ModelInfo) -> list[InputForm]:
    if model.state is not ModelState.READY and not model.inputs:
        reason = f": {model.reason}" if model.reason else ""
        raise CommandError(f'the inputs of model "{model.name}" are not known, its state is {model.state}{reason}')
    return [
        InputForm(
            name=spec.name,
            datatype=BY_NAME[spec.datatype],
            shape=spec.shape,
            batch_axis=spec.batch_axis,
            optional=spec.optional,
        )
        for spec in model.inputs
    ]


def _unreadable(file: Path, error: Exception) -> CommandError:
    return _usage(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}")


def _usage(message: str) -> CommandError:
    return CommandError(message, ExitCode.USAGE)

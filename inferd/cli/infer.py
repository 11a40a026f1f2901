"""``inferd infer``: inputs from the command line, files or recorded requests; outputs printed or saved."""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from textwrap import indent
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from inferd import recorded_requests
from inferd.cli.connection import Connection, open_client, with_connection
from inferd.cli.failures import CommandError, UsageError
from inferd.cli.output import array_json, array_text, print_json, save_outputs
from inferd.client import ModelInfo, ModelState, Result
from inferd.dtypes import BY_NAME, BY_NUMPY
from inferd.plain_text import escaped
from inferd.recorded_requests import InputForm, RecordedRequestsError
from inferd.small_files import open_file, read_text

EXAMPLES = (
    "inferd infer digits --input X=@digit.json",
    "inferd infer digits --input X=@digits.npy --output label --json",
    "inferd infer adder --input a=[1,2] --input b=[3,4] --save outputs/",
    "inferd infer adder --example examples.json:1 --input b=[3,4]",
    "inferd infer digits --input X=@digit.json --address http://127.0.0.1:8000",
)

Arrays = dict[str, NDArray[np.generic]]

#: More than a message can hold.
_MAX_JSON_BYTES = 2**31

_EXAMPLE = re.compile(r"(?P<file>.*\.(json|npz))(:(?P<number>[0-9]{1,9}))?", re.DOTALL)


@with_connection()
def infer(
    connection: Connection,
    *,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.", show_default=False)],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="NAME=VALUE",
            help="An input: NAME=JSON, NAME=@FILE.json or NAME=@FILE.npy. Repeatable.",
            show_default=False,
        ),
    ] = None,
    example: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[:NUMBER]",
            help="Send a recorded request of FILE.json or FILE.npz. Defaults to the first, number 0.",
            show_default=False,
        ),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option("--output", "-o", metavar="NAME", help="An output to request. Repeatable; defaults to all."),
    ] = None,
    version: Annotated[
        str,
        typer.Option(
            "--model-version",
            metavar="VERSION",
            help="Version of the model. Defaults to the highest.",
            show_default=False,
        ),
    ] = "",
    save: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR|NAME=FILE.npy",
            help="Save all outputs as DIR/NAME.npy, or one as FILE.npy, instead of printing. Repeatable.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run MODEL on a server once, and print or save its outputs.

    JSON is converted to the element type that the model declares. A value with one dimension less than declared is a
    single row. A .npy file is sent as is. Inputs given with a recorded request override those of the request.
    """
    with open_client(connection) as client:
        arrays = _read_inputs(inputs or (), example, lambda: client.model(model, version=version, load=True))
        result = client.infer(model, arrays, outputs=outputs or (), version=version)
        saved = save_outputs(save or (), result.outputs)
    (_print_json if as_json else _print_text)(result, saved)


def _read_inputs(arguments: Sequence[str], example: str | None, describe: Callable[[], ModelInfo]) -> Arrays:
    """Read the recorded request ``example``, FILE or FILE:NUMBER, and apply the inputs in ``arguments`` to it.

    ``describe`` returns the model's declared types and shapes. It is called at most once, and not for .npy inputs.
    """
    given = dict(_split(argument) for argument in arguments)
    if len(given) < len(arguments):
        raise UsageError("--input: expected each name once")
    describe = cache(describe)
    recorded = _recorded(example, describe) if example else {}
    arrays = {name: _npy(Path(text[1:])) for name, text in given.items() if _is_npy(text)}
    values = {name: _json(name, text) for name, text in given.items() if name not in arrays}
    if values:
        arrays |= _typed(values, describe())
    return recorded | {name: arrays[name] for name in given}


def _split(argument: str) -> tuple[str, str]:
    name, separator, text = argument.partition("=")
    if not (name and separator and text.removeprefix("@")):
        raise UsageError(f'--input: expected NAME=JSON, NAME=@FILE.json or NAME=@FILE.npy, got "{argument}"')
    return name, text


def _recorded(example: str, describe: Callable[[], ModelInfo]) -> Arrays:
    path, number = _example_of(example)
    forms = _forms(describe())
    # Only the server can check that dimensions match across inputs: the model's settings may exempt some of them.
    dimensions = {size for form in forms for size in form.shape if isinstance(size, str)}
    try:
        requests = recorded_requests.read(path, forms, loose_dimensions=dimensions)
    except RecordedRequestsError as error:
        raise UsageError(str(error)) from None
    if number >= len(requests):
        raise UsageError(f"--example: expected a number from 0 to {len(requests) - 1} for {path.name}, got {number}")
    return requests[number]


def _example_of(example: str) -> tuple[Path, int]:
    match = _EXAMPLE.fullmatch(example)
    if match is None:
        raise UsageError(f'--example: expected FILE.json, FILE.npz or one of them with :NUMBER, got "{example}"')
    return Path(match["file"]), int(match["number"] or 0)


def _is_npy(text: str) -> bool:
    return text.startswith("@") and text.endswith(".npy")


def _npy(file: Path) -> NDArray[np.generic]:
    try:
        # Without pickles, which can run any code.
        with open_file(file) as opened:
            array: NDArray[np.generic] = np.load(opened, allow_pickle=False)
    except Exception as error:  # noqa: BLE001  (damaged files raise anything)
        raise _cannot_read(file, error) from None
    if not isinstance(array, np.ndarray):
        raise UsageError(f"{file}: expected one array, got an archive")
    return array


def _json(name: str, text: str) -> object:
    origin = f'input "{name}"'
    try:
        if text.startswith("@"):
            origin = text[1:]
            text = read_text(Path(origin), _MAX_JSON_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise _cannot_read(Path(origin), error) from None
    try:
        return recorded_requests.parse_json(text)
    except ValueError as error:
        raise UsageError(f"{origin}: {error}") from None


def _typed(values: dict[str, object], model: ModelInfo) -> Arrays:
    forms = {form.name: form for form in _forms(model)}
    unknown = [name for name in values if name not in forms]
    if unknown:
        raise UsageError(f'input "{unknown[0]}": the model has no such input, it has {", ".join(forms) or "none"}')
    try:
        return {name: recorded_requests.from_json(forms[name], value) for name, value in values.items()}
    except ValueError as error:
        raise UsageError(str(error)) from None


def _forms(model: ModelInfo) -> list[InputForm]:
    if model.generation is not None:
        raise UsageError(
            f'model "{model.name}" is a language model, which takes no tensors: inferd generate {model.name}'
        )
    if model.state is not ModelState.READY and not model.inputs:
        reason = f": {model.reason}" if model.reason else ""
        raise CommandError(f'the inputs of model "{model.name}" are unknown, its state is {model.state}{reason}')
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


def _cannot_read(file: Path, error: Exception) -> CommandError:
    return UsageError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}")


def _print_text(result: Result, saved: dict[str, Path]) -> None:
    for name, array in result.outputs.items():
        print(f"{escaped(name)}  {BY_NUMPY[array.dtype].name} {list(array.shape)}")
        print(indent(f"saved to {saved[name]}" if name in saved else array_text(array), "  "))
    timing = result.timing
    # REST does not say how large the batch was.
    batch = f", batch of {timing.batch_rows}" if timing.batch_rows else ""
    print(
        f"{escaped(result.model)} version {escaped(result.version)}: queued {timing.queue_s * 1000:.2f} ms, "
        f"ran {timing.run_s * 1000:.2f} ms{batch}"
    )


def _print_json(result: Result, saved: dict[str, Path]) -> None:
    outputs = {
        name: {"datatype": BY_NUMPY[array.dtype].name}
        | ({"saved": str(saved[name])} if name in saved else array_json(array))
        for name, array in result.outputs.items()
    }
    print_json({"model": result.model, "version": result.version, "outputs": outputs, "timing": asdict(result.timing)})

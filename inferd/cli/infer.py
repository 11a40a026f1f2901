"""``inferd infer``."""

from dataclasses import asdict
from pathlib import Path
from textwrap import indent
from typing import Annotated

import typer

from inferd.cli.connection import connects
from inferd.cli.inputs import read_inputs
from inferd.cli.output import array_json, array_text, print_json
from inferd.cli.saving import save_outputs
from inferd.client import Client, Result
from inferd.dtypes import BY_NUMPY
from inferd.plain_text import escaped

EXAMPLES = (
    "inferd infer digits --input X=@digit.json",
    "inferd infer digits --input X=@digits.npy --output label --json",
    "inferd infer adder --input a=[1,2] --input b=[3,4] --save outputs/",
    "inferd infer adder --example examples.json:1 --input b=[3,4]",
)


@connects
def infer(
    client: Client,
    *,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.", show_default=False)],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="NAME=VALUE",
            help="An input: NAME=JSON, NAME=@FILE.json or NAME=@FILE.npy. Several times.",
            show_default=False,
        ),
    ] = None,
    example: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[:NUMBER]",
            help="Send a recorded request of FILE.json or FILE.npz, by default its first, number 0.",
            show_default=False,
        ),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option("--output", "-o", metavar="NAME", help="An output to ask for, by default all. Several times."),
    ] = None,
    version: Annotated[
        str, typer.Option("--model-version", metavar="VERSION", help="By default the highest.", show_default=False)
    ] = "",
    save: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR|NAME=FILE.npy",
            help="Save all outputs as DIR/NAME.npy, or one as FILE.npy, instead of printing. Several times.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Run MODEL on a server once, and print or save its outputs.

    JSON gets the element type that the model declares, and its shape from its lists; with one dimension less than
    declared it is taken to be a single row. A .npy file is sent as it is. Of a recorded request, inputs that are given
    beside it replace its own.
    """
    arrays = read_inputs(inputs or (), example, lambda: client.model(model, version=version))
    result = client.infer(model, arrays, outputs=outputs or (), version=version)
    saved = save_outputs(save or (), result.outputs)
    (_print_json if as_json else _print_text)(result, saved)


def _print_text(result: Result, saved: dict[str, Path]) -> None:
    for name, array in result.outputs.items():
        print(f"{escaped(name)}  {BY_NUMPY[array.dtype].name} {list(array.shape)}")
        print(indent(f"saved to {saved[name]}" if name in saved else array_text(array), "  "))
    timing = result.timing
    print(
        f"{escaped(result.model)} version {escaped(result.version)}: waited {timing.queue_s * 1000:.2f} ms, "
        f"ran {timing.run_s * 1000:.2f} ms, batch of {timing.batch_rows}"
    )


def _print_json(result: Result, saved: dict[str, Path]) -> None:
    outputs = {
        name: {"datatype": BY_NUMPY[array.dtype].name}
        | ({"saved": str(saved[name])} if name in saved else array_json(array))
        for name, array in result.outputs.items()
    }
    print_json({"model": result.model, "version": result.version, "outputs": outputs, "timing": asdict(result.timing)})

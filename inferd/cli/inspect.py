"""``inferd inspect``."""

from pathlib import Path
from typing import Annotated

import typer

from inferd.cli.failures import CommandError
from inferd.cli.output import print_json, print_table, shape_text
from inferd.config import ModelSettings
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.model_file import ModelHeader, read_header
from inferd.runtime.session import OnnxSession, open_session
from inferd.runtime.signature import TensorSpec

EXAMPLES = ("inferd inspect model.onnx", "inferd inspect model.onnx --json")


def inspect(
    *,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="An ONNX file.", show_default=False)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Tell what an ONNX file holds and how it would be served.

    Loads the model as a server with default settings would. Ends with exit code 1 if a server would refuse it.
    """
    try:
        header = read_header(file)
    except ModelLoadError as error:
        raise CommandError(str(error)) from None
    # What can be said of a model that is refused is said before.
    if not as_json:
        _print_header(file, header)
    try:
        session = open_session(file, ModelSettings())
    except ModelLoadError as error:
        raise CommandError(f"a server would refuse it: {error}") from None
    if as_json:
        _print_json(file, header, session)
    else:
        _print_session(session, ModelSettings().batching.max_batch_size)


def _print_header(file: Path, header: ModelHeader) -> None:
    opsets = ", ".join(f"{domain} {version}" for domain, version in header.opsets.items())
    print(f"file      {file}, {file.stat().st_size / 1024:,.1f} KiB")
    print(f"format    ONNX IR {header.ir_version}, opset {opsets or 'none'}")
    print(f"producer  {' '.join(filter(None, (header.producer_name, header.producer_version))) or 'unknown'}")


def _print_session(session: OnnxSession, max_batch_size: int) -> None:
    signature = session.signature
    rows = [_row("input", spec) for spec in signature.inputs] + [_row("output", spec) for spec in signature.outputs]
    print_table(["", "NAME", "TYPE", "SHAPE", "BATCH AXIS"], rows)
    if signature.batchable:
        print(f"Would be served with batching, up to {max_batch_size} rows (batching.max_batch_size).")
    else:
        print(f"Would be served without batching: {session.why_not_batchable}.")
    print(f"Would run on {', '.join(session.providers)}.")


def _row(kind: str, spec: TensorSpec) -> list[str]:
    axis = "" if spec.batch_axis is None else str(spec.batch_axis)
    return [kind, spec.name, spec.datatype.name, shape_text(spec.shape), axis]


def _print_json(file: Path, header: ModelHeader, session: OnnxSession) -> None:
    signature = session.signature
    print_json(
        {
            "file": str(file),
            "bytes": file.stat().st_size,
            "ir_version": header.ir_version,
            "opsets": dict(header.opsets),
            "producer": header.producer_name,
            "producer_version": header.producer_version,
            "inputs": [_tensor_json(spec) for spec in signature.inputs],
            "outputs": [_tensor_json(spec) for spec in signature.outputs],
            "batchable": signature.batchable,
            "why_not_batchable": session.why_not_batchable,
            "providers": session.providers,
        }
    )


def _tensor_json(spec: TensorSpec) -> dict[str, object]:
    return {
        "name": spec.name,
        "datatype": spec.datatype.name,
        "shape": spec.shape,
        "batch_axis": spec.batch_axis,
    }

"""``inferd models``."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated

import typer

from inferd.cli.connection import connects
from inferd.cli.output import print_json, print_table, shape_text
from inferd.client import BatchingInfo, Client, ModelInfo, TensorInfo

EXAMPLES = ("inferd models", "inferd models --address inferd.example.com:443 --tls --json")


@connects
def models(
    client: Client,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list, for programs.")] = False,
) -> None:
    """List the models of a server: name, version, state, inputs, outputs and batching."""
    found = client.models()
    if as_json:
        print_json([_as_json(model) for model in found])
    elif not found:
        print("The server has no models.")
    else:
        columns = ["NAME", "VERSION", "STATE", "INPUTS", "OUTPUTS", "BATCHING"]
        # Only failures have a reason, and an empty column would take room from the others.
        if any(model.reason for model in found):
            columns.append("REASON")
        print_table(columns, [_row(model)[: len(columns)] for model in found])


def _row(model: ModelInfo) -> list[str]:
    return [
        model.name,
        model.version,
        str(model.state),
        _tensors(model.inputs),
        _tensors(model.outputs),
        _batching(model.batching) if model.inputs else "",
        model.reason,
    ]


def _tensors(tensors: Iterable[TensorInfo]) -> str:
    return "\n".join(f"{tensor.name} {tensor.datatype} {shape_text(tensor.shape)}" for tensor in tensors)


def _batching(batching: BatchingInfo) -> str:
    if not batching.enabled:
        return "off"
    wait = f", waits {batching.max_wait_s * 1000:g} ms" if batching.max_wait_s else ""
    return f"up to {batching.max_batch_size} rows{wait}"


def _as_json(model: ModelInfo) -> dict[str, object]:
    description = asdict(model)
    for tensor in (*description["inputs"], *description["outputs"]):
        # It says in numpy's words what datatype says.
        del tensor["dtype"]
    return description

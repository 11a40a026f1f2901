"""``inferd models``."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated

import typer

from inferd.cli.connection import connects
from inferd.cli.output import print_json, print_table, shape_text
from inferd.client import BatchingInfo, Client, ModelInfo, TensorInfo
from inferd.plain_text import escaped

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
        rows = [_row(model) for model in found]
        columns = ["NAME", "VERSION", "STATE", "INPUTS", "OUTPUTS", "BATCHING"]
        # Most models have no reason, and an empty column would take room from the others.
        if any(row[-1] for row in rows):
            columns.append("REASON")
        print_table(columns, [row[: len(columns)] for row in rows])


def _row(model: ModelInfo) -> list[str]:
    return [
        escaped(model.name),
        escaped(model.version),
        str(model.state),
        _tensors(model.inputs),
        _tensors(model.outputs),
        _batching(model.batching) if _has_been_read(model) else "",
        escaped(model.reason or model.batching.verdict_reason),
    ]


def _has_been_read(model: ModelInfo) -> bool:
    """Whether it is known how the model is batched. Some models have no inputs."""
    return bool(model.batching.verdict or model.inputs or model.outputs)


def _tensors(tensors: Iterable[TensorInfo]) -> str:
    return "\n".join(map(_tensor, tensors))


def _tensor(tensor: TensorInfo) -> str:
    optional = " (optional)" if tensor.optional else ""
    return f"{escaped(tensor.name)} {tensor.datatype} {shape_text(tensor.shape)}{optional}"


def _batching(batching: BatchingInfo) -> str:
    doubt = "" if batching.verdict == "proven" else batching.verdict
    if not batching.enabled:
        return f"off, {doubt}" if doubt else "off by settings" if batching.verdict else "off"
    wait = f", waits {batching.max_wait_s * 1000:g} ms" if batching.max_wait_s else ""
    # It may be batched in spite of its verdict, because the operator has set `batch_axis`.
    return f"up to {batching.max_batch_size} rows{wait}{f', although {doubt}' if doubt else ''}"


def _as_json(model: ModelInfo) -> dict[str, object]:
    description = asdict(model)
    for tensor in (*description["inputs"], *description["outputs"]):
        # It says in numpy's words what datatype says.
        del tensor["dtype"]
    return description

"""``inferd models``."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated

import typer

from inferd.cli.connection import Connection, open_client, with_connection
from inferd.cli.output import print_json, print_table, shape_text
from inferd.client import BatchingInfo, ModelInfo, PredictedRun, RunCost, TensorInfo
from inferd.plain_text import escaped

EXAMPLES = ("inferd models", "inferd models --address inferd.example.com:443 --tls --json")


@with_connection()
def models(
    connection: Connection,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List the models of a server: name, version, state, inputs, outputs, batching and predicted run time."""
    with open_client(connection) as client:
        found = client.models()
    if as_json:
        print_json([_as_json(model) for model in found])
    elif not found:
        print("The server has no models.")
    else:
        rows = [_row(model) for model in found]
        columns = ["NAME", "VERSION", "STATE", "INPUTS", "OUTPUTS", "BATCHING", "RUN TIME"]
        # Usually empty, and then a waste of width.
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
        _batching(model.batching) if _is_loaded(model) else "",
        _run_time(model.run_cost) if _is_loaded(model) else "",
        escaped(model.reason or model.batching.verdict_reason),
    ]


def _is_loaded(model: ModelInfo) -> bool:
    """Whether the server has read the model. Some models have no inputs."""
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
    # An operator may enable batching against the verdict by setting `batch_axis`.
    return f"up to {batching.max_batch_size} rows{wait}{f', although {doubt}' if doubt else ''}"


def _run_time(cost: RunCost | None) -> str:
    """Return what runs of one row and of a full batch are predicted to take, and how sure that is."""
    if cost is None or not cost.sizes:
        return "-"
    ends = ", ".join(map(_predicted, dict.fromkeys((cost.sizes[0], cost.sizes[-1]))))
    if not cost.runs:
        return f"{ends}, from warm-up"
    return ends if cost.error is None else f"{ends} ± {100 * cost.error:.0f} %"


def _predicted(run: PredictedRun) -> str:
    value, unit = run.seconds * 1e6, "µs"
    for larger in ("ms", "s"):
        # From the value on that would be rounded to four digits.
        if value >= 999.5:
            value, unit = value / 1000, larger
    digits = 0 if value >= 9.95 else 1
    return f"{run.rows} row{'s' if run.rows > 1 else ''} {value:.{digits}f} {unit}"


def _as_json(model: ModelInfo) -> dict[str, object]:
    description = asdict(model)
    for tensor in (*description["inputs"], *description["outputs"]):
        # The numpy name of datatype.
        del tensor["dtype"]
    return description

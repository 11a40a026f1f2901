"""The model, the mapping and the error rows of ``inferd batch``, for Ray Data.

``Predictor`` is a class for ``map_batches``: Ray creates one in each actor, with a session of its own, and calls it
with tables. Ray itself is not imported, so programs that only name the class need not have it.

    answers = ray.data.read_parquet("s3://bucket/rows/").map_batches(
        Predictor, fn_constructor_kwargs={"model": "/models/resnet", "join": ["id"]}, batch_format="pyarrow",
        batch_size=4096, compute=ray.data.ActorPoolStrategy(size=8), num_cpus=2
    ).materialize()
    answers.map_batches(answered, batch_format="pyarrow").write_parquet("s3://bucket/answers/")
    answers.map_batches(failed, batch_format="pyarrow").write_json("s3://bucket/failed/")

A row without an answer keeps its place: its outputs are null, and the column ``error`` says why.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from inferd.batch.binding import Binding, Columns, bind
from inferd.batch.blocks import BatchLimits, Block, FinishedBlock, Origin
from inferd.batch.errors import RowError, UsageError
from inferd.batch.layouts import nested
from inferd.batch.local import open_local
from inferd.batch.options import JobOptions
from inferd.batch.preparation.arguments import image_options, tokenize_options
from inferd.batch.preparation.blocks import BlockPreparation
from inferd.batch.preparation.choice import preparation_for
from inferd.batch.running import BlockRunner
from inferd.batch.sizing import choose_limits
from inferd.config.loading import load_settings

#: The name and type of the column of errors.
ERROR = "error"
ERROR_TYPE = pa.struct([("code", pa.string()), ("message", pa.string())])

#: The names of Ray's own Arrow types for tensors of one shape.
_RAY_TENSORS = ("ray.data.arrow_tensor", "ray.data.arrow_tensor_v2")

#: In place of the names of files in errors: a table has none.
_SOURCES = ("",)

#: The rows of the first table with which the size of batches is measured.
_SAMPLE_ROWS = 1024


@dataclass(frozen=True, slots=True)
class _Bound:
    """The binding of tables of ``schema`` to the model."""

    schema: pa.Schema
    binding: Binding
    preparation: BlockPreparation


class Predictor:
    """Runs a model on tables; the arguments are those of ``inferd batch``. Threads: one.

    ``model`` is a path on the machine of the actor. ``mapping`` has the column of each input with another name,
    ``outputs`` the column of each wanted output; ``join`` are the columns to keep, None for none and empty for all.
    ``tokenize`` and ``image`` are texts as for the command. ``settings`` are the server's, by dotted names; threads and
    providers follow from the CPUs and GPUs that Ray gives the actor, unless they are among them.

    Batches are cut within a table, so a table should have many rows.
    """

    def __init__(
        self,
        model: str,
        *,
        mapping: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
        join: Sequence[str] | None = None,
        columns: Sequence[str] = (),
        tokenize: str | None = None,
        image: str | None = None,
        batch_rows: int | None = None,
        batch_bytes: int | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self._options = JobOptions(
            model=model,
            inputs=(),
            output="",
            mapping=mapping or {},
            outputs=outputs or {},
            join=None if join is None else tuple(join),
            columns=tuple(columns),
            tokenize=None if tokenize is None else tokenize_options(tokenize),
            image=None if image is None else image_options(image),
            batch_rows=batch_rows,
            batch_bytes=batch_bytes,
        )
        # Opened here, as Ray has no start method; the session ends with the process of the actor.
        self._runner = open_local(
            model, load_settings(config_file=None, flags={**_settings_of_actor(), **(settings or {})})
        )
        self._bound: _Bound | None = None
        self._limits: BatchLimits | None = None

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the kept columns, the outputs and the error of each row, in order.

        Raises `inferd.batch.errors.UsageError` if the columns are none that the model can take.
        """
        if not isinstance(table, pa.Table):
            raise UsageError(
                f'map_batches: expected batch_format="pyarrow" beside Predictor, got {type(table).__name__}'
            )
        rows = _plain(table)
        bound = self._bound_to(rows.schema)
        if self._limits is None and len(rows):
            self._limits = self._chosen_limits(bound, rows.slice(0, _SAMPLE_ROWS))
        block = bound.preparation.prepare_block(_block(rows))
        runner = BlockRunner(self._runner, bound.binding, self._limits or BatchLimits(1, 1), _SOURCES)
        [finished] = runner.run(iter([block]))
        return _with_errors(rows, finished, bound.binding)

    def close(self) -> None:
        """Free the model. Only for use outside Ray."""
        self._runner.close()

    def _bound_to(self, schema: pa.Schema) -> _Bound:
        if self._bound is None or not self._bound.schema.equals(schema):
            signature = self._runner.signature
            preparation = preparation_for(self._options, signature, schema)
            binding = bind(signature, Columns(schema=schema), self._options, preparation)
            if ERROR in binding.output_schema.names:
                raise UsageError(f'column "{ERROR}": that is the column of errors; give the output another name')
            self._bound = _Bound(schema, binding, BlockPreparation(binding, signature, _SOURCES, None))
        return self._bound

    def _chosen_limits(self, bound: _Bound, rows: pa.RecordBatch) -> BatchLimits:
        sample = bound.preparation.prepare_block(_block(rows)).tensors
        return choose_limits(self._runner, sample, tuple(bound.binding.outputs), self._options)


def answered(table: pa.Table) -> pa.Table:
    """Return the rows of a `Predictor` that have an answer, without the column of errors."""
    return table.filter(table[ERROR].is_null()).drop_columns([ERROR])


def failed(table: pa.Table) -> pa.Table:
    """Return the rows of a `Predictor` that have an error."""
    return table.filter(table[ERROR].is_valid())


def _settings_of_actor() -> dict[str, object]:
    """Return the settings for the CPUs and GPUs that Ray assigned to this actor; empty outside of actors."""
    # In an actor Ray is imported already.
    ray = sys.modules.get("ray")
    context = ray.get_runtime_context() if ray is not None and ray.is_initialized() else None
    if context is None or context.get_actor_id() is None:
        return {}
    given = context.get_assigned_resources()
    # An assigned GPU must be used; any other belongs to another actor.
    providers = ["cuda"] if given.get("GPU") else ["cpu"]
    return {"runtime.providers": providers, "runtime.intra_op_threads": max(1, int(given.get("CPU", 1)))}


def _plain(table: pa.Table) -> pa.RecordBatch:
    """Return ``table`` as one record batch, with Ray's tensors as lists."""
    table = table.combine_chunks()
    columns = [_lists(column.combine_chunks()) for column in table.columns]
    return pa.RecordBatch.from_arrays(columns, names=table.column_names)


def _lists(column: pa.Array) -> pa.Array:
    if getattr(column.type, "extension_name", "") not in _RAY_TENSORS or column.null_count:
        return column
    return nested(column.storage.flatten(), column.type.shape)


def _block(rows: pa.RecordBatch) -> Block:
    count = len(rows)
    return Block(
        part=0,
        is_last=True,
        origin=Origin(np.zeros(count, np.int64), np.arange(count)),
        table=rows,
        errors=[],
        read_rows=count,
    )


def _with_errors(rows: pa.RecordBatch, finished: FinishedBlock, binding: Binding) -> pa.Table:
    """Return the answers, with nulls for rows without one, and the column of errors."""
    errors: dict[int, RowError] = {error.row: error for error in finished.errors if error.row is not None}
    is_failed = np.zeros(len(rows), np.bool_)
    is_failed[list(errors)] = True
    # The index of each row's answer.
    answers = finished.table.take(pa.array(np.cumsum(~is_failed) - 1, mask=is_failed))
    table: dict[str, Any] = {
        name: rows.column(name) if name in binding.joined else answers.column(name)
        for name in binding.output_schema.names
    }
    table[ERROR] = pa.array(
        [
            None if error is None else {"code": error.code, "message": error.message}
            for error in map(errors.get, range(len(rows)))
        ],
        ERROR_TYPE,
    )
    return pa.table(table)

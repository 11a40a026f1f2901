"""Outputs of batches as columns."""

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest

from inferd.batch.binding import Binding, Columns, bind
from inferd.batch.blocks import Origin, Selection
from inferd.batch.errors import RUN_FAILED, RowsFailedError
from inferd.batch.options import JobOptions
from inferd.batch.outputs import OutputRows
from inferd.dtypes import ALL, BY_NAME
from inferd.runtime.signature import Array, ModelSignature, TensorSpec

_JOINED = pa.record_batch({"id": pa.array([f"row {row}" for row in range(5)])})
_ORIGIN = Origin(np.array([0, 0, 1, 1, 1]), np.array([7, 8, 0, 1, 2]))


def _output(name: str, datatype: str, *shape: int | str | None, batch_axis: int | None = 0) -> TensorSpec:
    return TensorSpec(name=name, datatype=BY_NAME[datatype], shape=shape, batch_axis=batch_axis)


def _signature(*outputs: TensorSpec) -> ModelSignature:
    x = TensorSpec(name="x", datatype=BY_NAME["FP32"], shape=("rows",), batch_axis=0)
    return ModelSignature(inputs=(x,), outputs=outputs, batchable=True)


def _binding(signature: ModelSignature, **options: object) -> Binding:
    schema = pa.schema([("x", pa.float32()), ("id", pa.string())])
    return bind(signature, Columns(schema=schema), JobOptions(model="m", inputs=("in",), output="out", **options))


def _table(specs: tuple[TensorSpec, ...], *given: tuple[Selection, dict[str, Array]], **options: object) -> pa.Table:
    signature = _signature(*specs)
    rows = OutputRows(_binding(signature, **options), signature, len(_JOINED))
    for selection, arrays in given:
        rows.put(selection, arrays)
    table = rows.finish(_JOINED, _ORIGIN, ["a.parquet", "b.parquet"])
    table.validate(full=True)
    return table


@pytest.mark.parametrize("datatype", ALL, ids=lambda datatype: datatype.name)
@pytest.mark.parametrize("shape", [(), (2,), (2, 3), ("length",), (None, 2), (2, None)], ids=str)
def test_each_datatype_and_shape(datatype: object, shape: tuple[int | str | None, ...]) -> None:
    """A column has the values of the output, in the order of the rows, whatever the order of the batches."""
    name = datatype.name
    sizes = tuple(size if isinstance(size, int) else 3 for size in shape)
    values = np.arange(5 * int(np.prod(sizes, dtype=int))).reshape(5, *sizes)
    expected = values % 2 == 1 if name == "BOOL" else values
    array = np.array([b"%d" % value for value in values.ravel()], object) if name == "BYTES" else expected
    array = np.asarray(array).reshape(values.shape).astype(datatype.numpy)
    late, early = np.array([4, 1, 3]), np.array([0, 2])
    table = _table((_output("y", name, "rows", *shape),), (late, {"y": array[late]}), (early, {"y": array[early]}))
    if name == "BYTES":
        expected = values.astype(str)
    assert table.column("y").to_pylist() == expected.tolist()
    assert table.schema.field("y").type == _nested(name, shape)


def _nested(name: str, shape: tuple[int | str | None, ...]) -> pa.DataType:
    kind = (
        pa.float32() if name == "BF16" else pa.string() if name == "BYTES" else pa.from_numpy_dtype(BY_NAME[name].numpy)
    )
    for size in reversed(shape):
        kind = pa.list_(kind, size) if isinstance(size, int) else pa.list_(kind)
    return kind


def test_open_dimensions_may_differ_between_batches() -> None:
    """Each row keeps the size that its batch gave, and one may be empty."""
    output = _output("y", "INT64", "rows", "length", 2)
    sizes = {0: 1, 1: 3, 2: 0}
    batches = [(np.array([row, row + 2]), size) for row, size in sizes.items() if row < 2] + [(np.array([4]), 0)]
    given = [(rows, {"y": np.full((len(rows), size, 2), size)}) for rows, size in batches]
    table = _table((output,), *given)
    assert [len(row) for row in table.column("y").to_pylist()] == [1, 3, 1, 3, 0]


def test_dimensions_of_no_size() -> None:
    """Rows without elements are empty lists, as many as there are rows."""
    table = _table((_output("y", "FP32", "rows", 2, 0),), (slice(0, 5), {"y": np.empty((5, 2, 0), np.float32)}))
    assert table.column("y").to_pylist() == [[[], []]] * 5


def test_batch_axis_other_than_the_first() -> None:
    """Rows lie along the batch axis of the output."""
    array = np.arange(10).reshape(2, 5)
    table = _table((_output("y", "INT64", 2, "rows", batch_axis=1),), (slice(0, 5), {"y": array}))
    assert table.column("y").to_pylist() == array.T.tolist()


def test_repeats_shared_outputs() -> None:
    """What a batch gives once is repeated for each of its rows."""
    output = _output("classes", "INT64", 3, batch_axis=None)
    first, second = np.array([1, 2, 3]), np.array([4, 5, 6])
    table = _table((output,), (slice(0, 4), {"classes": first}), (slice(4, 5), {"classes": second}))
    assert table.column("classes").to_pylist() == [[1, 2, 3]] * 4 + [[4, 5, 6]]


def test_rows_without_outputs_are_left_out() -> None:
    """Failed rows are missing from all columns, and the others keep their own joined values and ids."""
    given = (np.array([4, 1]), {"y": np.float32([40, 10])})
    table = _table((_output("y", "FP32", "rows"),), given, join=("id",), row_ids=True)
    assert table.to_pydict() == {
        "source": ["a.parquet", "b.parquet"],
        "row": [8, 2],
        "id": ["row 1", "row 4"],
        "y": [10, 40],
    }


def test_no_rows() -> None:
    """A block without any answer is an empty table of the schema."""
    table = _table((_output("y", "FP32", "rows", 3),), join=("id",), row_ids=True)
    assert table.num_rows == 0
    assert table.schema.names == ["source", "row", "id", "y"]


def test_only_wanted_outputs_are_looked_at() -> None:
    """Outputs that nobody asked for need not be there."""
    outputs = (_output("y", "FP32", "rows"), _output("z", "FP32", "rows"))
    table = _table(outputs, (slice(0, 5), {"z": np.arange(5, dtype=np.float32)}), outputs={"z": "score"})
    assert table.to_pydict() == {"score": [0, 1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("array", "got"),
    [
        (np.zeros((5, 4)), "[5,4]"),
        (np.zeros((1, 3)), "[1,3]"),
        (np.zeros(5), "[5]"),
    ],
)
def test_outputs_that_the_model_denies(array: Array, got: str) -> None:
    """Other shapes than the declared ones fail the batch, and nothing of it is kept."""
    signature = _signature(_output("z", "FP32", "rows"), _output("y", "FP32", "rows", 3))
    rows = OutputRows(_binding(signature), signature, 5)
    with pytest.raises(RowsFailedError) as raised:
        rows.put(slice(0, 5), {"z": np.zeros(5, np.float32), "y": array.astype(np.float32)})
    assert raised.value.code == RUN_FAILED
    assert str(raised.value) == f'output "y": expected [3] for each of 5 rows, as the model declares, got {got}'
    rows.put(slice(0, 5), {"z": np.zeros(5, np.float32), "y": np.ones((5, 3), np.float32)})
    assert rows.finish(_JOINED, _ORIGIN, []).num_rows == 5


def test_half_precision_keeps_every_value() -> None:
    """BF16 becomes FP32, which holds all its values; FP16 stays."""
    values = np.float32([1.5, -0.0, 3e38, 1e-38, np.inf])
    outputs = (_output("b", "BF16", "rows"), _output("h", "FP16", "rows"))
    given = {"b": values.astype(ml_dtypes.bfloat16), "h": np.float16([1, 2, 3, 4, 65504])}
    table = _table(outputs, (slice(0, 5), given))
    assert np.array_equal(table.column("b").to_numpy(), given["b"].astype(np.float32))
    assert np.array_equal(table.column("h").to_numpy(zero_copy_only=False), given["h"])

"""Arrays of NumPy as rows: .npy and .npz."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from inferd.batch.errors import UnreadableFileError
from inferd.batch.sources import arrays
from inferd.batch.sources.arrays import NpyReader
from inferd.batch.sources.npz import NpzReader
from tests.unit.batch.sources.files import rows_of, source

NUMBERS = np.random.default_rng(0).integers(0, 100, (37, 2, 3))


def npy(folder: Path, array: np.ndarray, name: str = "a.npy") -> Path:
    """Return the file of an array."""
    path = folder / name
    np.save(path, array)
    return path


@pytest.mark.parametrize("rows", [1, 5, 64])
@pytest.mark.parametrize(("start", "stop"), [(0, 37), (3, 20), (36, 37), (7, 7)])
@pytest.mark.parametrize("array", [NUMBERS, np.asfortranarray(NUMBERS), NUMBERS[:, 0, 0]], ids=["c", "fortran", "flat"])
def test_npy_reads_ranges(tmp_path: Path, array: np.ndarray, start: int, stop: int, rows: int) -> None:
    """Any range of rows has the array's values, whatever order they stand in, as lists of fixed sizes."""
    file = source(npy(tmp_path, array), "npy")
    values, errors = rows_of(NpyReader(), file, start=start, stop=stop, rows=rows)
    assert values == {row: (array[row].tolist(),) for row in range(start, stop)}
    assert not errors


def test_npy_has_types_and_partition(tmp_path: Path) -> None:
    """The column is of the array's type, in the machine's byte order, beside those of the path."""
    file = source(npy(tmp_path, np.zeros((2, 3, 4), ">f4")), "npy", {"year": 2026})
    schema = NpyReader().schema(file)
    assert schema == pa.schema([("values", pa.list_(pa.list_(pa.float32(), 4), 3)), ("year", pa.int32())])
    values, _ = rows_of(NpyReader(), file)
    assert values[1] == ([[0.0] * 4] * 3, 2026)


@pytest.mark.parametrize(
    ("array", "kind", "values"),
    [
        (np.array([True, False]), pa.bool_(), [True, False]),
        (np.array([1.5, 2], np.float16), pa.float16(), [1.5, 2.0]),
        (np.array([1, 2**63], np.uint64), pa.uint64(), [1, 2**63]),
        (np.array(["ü", "long"]), pa.string(), ["ü", "long"]),
        (np.array([b"\xff", b"long"]), pa.binary(), [b"\xff", b"long"]),
        (np.array([["a", "b"]]), pa.list_(pa.string(), 2), [["a", "b"]]),
    ],
)
def test_npy_reads_types(tmp_path: Path, array: np.ndarray, kind: pa.DataType, values: list[object]) -> None:
    """Numbers of all kinds and texts are read as they are."""
    file = source(npy(tmp_path, array), "npy")
    assert NpyReader().schema(file).field("values").type == kind
    found, _ = rows_of(NpyReader(), file)
    assert [value for (value,) in found.values()] == values


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array(5), r"shape \[\]"),
        (np.zeros((3, 0)), r"shape \[3, 0\]"),
        (np.zeros(3, complex), "numbers or texts, got elements of type complex128"),
        (np.zeros(3, np.longdouble), "numbers or texts"),
        (np.array([{}], object), "numbers or texts, got elements of type object"),
        (np.zeros(3, [("a", "f4")]), "numbers or texts"),
    ],
)
def test_npy_refuses(tmp_path: Path, array: np.ndarray, message: str) -> None:
    """Arrays without rows, or of what a model cannot take, are refused."""
    file = source(npy(tmp_path, array), "npy")
    for call in (NpyReader().schema, NpyReader().spans):
        with pytest.raises(UnreadableFileError, match=message):
            call(file)


def test_other_files_are_refused(tmp_path: Path) -> None:
    """What is no array is an error of the file."""
    path = tmp_path / "a.npy"
    path.write_bytes(b"no array")
    with pytest.raises(UnreadableFileError, match="expected an array of NumPy"):
        NpyReader().spans(source(path, "npy"))
    with pytest.raises(UnreadableFileError, match="expected an archive of arrays"):
        NpzReader().spans(source(path, "npz"))


@pytest.mark.parametrize("array", [NUMBERS, np.asfortranarray(NUMBERS)], ids=["c", "fortran"])
def test_cut_npy_loses_its_last_rows(tmp_path: Path, array: np.ndarray) -> None:
    """Rows that a cut file lacks are errors, the others are read."""
    path = npy(tmp_path, array)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 60)
    values, errors = rows_of(NpyReader(), source(path, "npy"), rows=10)
    lost = 2 if array.flags.c_contiguous else 8
    assert values == {row: (array[row].tolist(),) for row in range(37 - lost)}
    assert list(errors) == list(range(37 - lost, 37))
    assert errors[36] == f"the file has been cut: expected 37 rows, got {37 - lost}"


def npz(folder: Path, *, compressed: bool = False, **members: np.ndarray) -> Path:
    """Return the file of an archive."""
    path = folder / "a.npz"
    (np.savez_compressed if compressed else np.savez)(path, **members)
    return path


@pytest.mark.parametrize("compressed", [False, True])
def test_npz_reads_arrays_side_by_side(tmp_path: Path, *, compressed: bool) -> None:
    """Each array is a column; parts that follow each other, or do not, have their rows."""
    names = np.array([f"n{row}" for row in range(37)])
    file = source(npz(tmp_path, compressed=compressed, x=NUMBERS, name=names, count=np.array(3)), "npz")
    reader = NpzReader()
    assert reader.spans(file) == [37]
    assert reader.schema(file).names == ["x", "name"]
    for start, stop in ((0, 10), (10, 11), (20, 37), (5, 9)):
        values, errors = rows_of(reader, file, start=start, stop=stop, rows=4)
        assert values == {row: (NUMBERS[row].tolist(), f"n{row}") for row in range(start, stop)}
        assert not errors


def test_npz_reads_wanted_arrays_only(tmp_path: Path) -> None:
    """Columns that are not asked for are not read."""
    file = source(npz(tmp_path, x=NUMBERS, y=np.arange(37)), "npz", {"day": "mon"})
    values, _ = rows_of(NpzReader(), file, pa.schema([("day", pa.string()), ("y", pa.int64())]), 30)
    assert values[31] == ("mon", 31)


def test_npz_leaves_out_what_no_column_has(tmp_path: Path) -> None:
    """Objects and complex numbers beside what is read do not matter; alone they are refused, by their name."""
    other = {"o": np.array([{}, None]), "c": np.zeros(5, np.complex64)}
    file = source(npz(tmp_path, **other, x=np.arange(3)), "npz")
    assert NpzReader().schema(file).names == ["x"]
    assert rows_of(NpzReader(), file)[0] == {0: (0,), 1: (1,), 2: (2,)}
    with pytest.raises(
        UnreadableFileError, match=r'the array "c": expected an array of numbers or texts, got .*complex'
    ):
        NpzReader().schema(source(npz(tmp_path, **other), "npz"))


def test_npz_refuses(tmp_path: Path) -> None:
    """Arrays of different lengths, none, and the order of Fortran are refused."""
    for members, message in (
        ({"x": np.zeros(3), "y": np.zeros(4)}, "as many rows, got x 3, y 4"),
        ({"x": np.array(3)}, "as many rows, got none"),
        ({"x": np.asfortranarray(NUMBERS)}, '"x" is in the order of Fortran'),
    ):
        arrays_file = source(npz(tmp_path, **members), "npz")
        with pytest.raises(UnreadableFileError, match=message):
            NpzReader().spans(arrays_file)


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_npz_is_not_read(tmp_path: Path, *, compressed: bool) -> None:
    """An archive that is not what was written is refused before its first row; rows are lost if it changes later."""
    path = npz(tmp_path, compressed=compressed, x=np.random.default_rng(0).random((2000, 20)))
    file = source(path, "npz")
    schema = NpzReader().schema(file)
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        stream.write(b"\xff" * 64)
    with pytest.raises(UnreadableFileError, match="damaged: "):
        NpzReader().spans(file)
    chunks = list(NpzReader().read(file, schema, 0, 2000, 100))
    errors = [error for chunk in chunks for error in chunk.errors]
    assert errors[-1].row == 1999
    assert errors[-1].message.startswith("damaged: ")
    assert sum(len(chunk.rows) for chunk in chunks) + len(errors) == 2000


def test_large_rows_come_in_small_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk has no more bytes than it may, whatever rows are asked for."""
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 100)
    file = source(npy(tmp_path, np.zeros((9, 5))), "npy")
    chunks = list(NpyReader().read(file, NpyReader().schema(file), 0, 9, 1000))
    assert [len(chunk.rows) for chunk in chunks] == [2, 2, 2, 2, 1]


def test_npz_compares_arrays_that_are_used(tmp_path: Path) -> None:
    """Others may have any length; without a choice all are used."""
    file = source(npz(tmp_path, x=NUMBERS, labels=np.arange(3)), "npz")
    for call in (NpzReader().schema, NpzReader().spans, NpzReader(["x", "labels"]).spans):
        with pytest.raises(
            UnreadableFileError, match=r"expected arrays of as many rows, got x 37, labels 3; name those .* --columns"
        ):
            call(file)
    reader = NpzReader(["x"])
    assert reader.schema(file).names == ["x", "labels"]
    assert reader.spans(file) == [37]

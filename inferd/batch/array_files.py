"""Write columns of numbers as arrays of NumPy: one as ``.npy``, several by name as ``.npz``."""

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from shutil import copyfileobj
from tempfile import SpooledTemporaryFile
from typing import IO, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.lib import format as npy

from inferd.batch.errors import BatchError
from inferd.batch.layouts import plain
from inferd.plain_text import escaped

#: The bytes of an array in memory; more go to a temporary file until its length, which comes first, is known.
_SPOOLED_BYTES = 32 << 20

_COPIED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ArrayType:
    """The elements of an array, and the shape of each of its rows."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]

    def write_header(self, file: IO[bytes], rows: int) -> None:
        """Write the header, which precedes the elements."""
        npy.write_array_header_1_0(
            file, {"descr": npy.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (rows, *self.shape)}
        )


def array_type(kind: pa.DataType) -> ArrayType:
    """Return the array type of a column of ``kind``. Raises `ValueError` if its elements are not numbers."""
    shape: list[int] = []
    types = pa.types
    while not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        if isinstance(kind, pa.FixedShapeTensorType):
            shape += kind.shape if kind.permutation is None else [kind.shape[axis] for axis in kind.permutation]
        elif types.is_fixed_size_list(kind):
            shape.append(kind.list_size)
        else:
            msg = f"{kind} is no number"
            raise ValueError(msg)
        kind = kind.value_type
    return ArrayType(np.dtype(kind.to_pandas_dtype()), tuple(shape))


class _Column:
    """The growing array of one column."""

    def __init__(self, field: pa.Field) -> None:
        self._name = field.name
        self._type = array_type(field.type)
        self._rows = 0
        self._elements = SpooledTemporaryFile(_SPOOLED_BYTES)  # noqa: SIM115  (`move_to` closes it)

    def append(self, column: pa.Array) -> None:
        """Add the rows of ``column``; a null is NaN. Raises `BatchError` for a null in other types."""
        self._rows += len(column)
        while isinstance(column, pa.FixedShapeTensorArray | pa.FixedSizeListArray):
            self._require(column.null_count == 0)
            column = plain(column) if isinstance(column, pa.FixedShapeTensorArray) else column.flatten()
        self._require(column.null_count == 0 or pa.types.is_floating(column.type))
        self._elements.write(np.ascontiguousarray(column.to_numpy(zero_copy_only=False)).data.cast("B"))

    def move_to(self, file: IO[bytes]) -> None:
        """Write the whole array."""
        self._type.write_header(file, self._rows)
        self._elements.seek(0)
        copyfileobj(self._elements, file, _COPIED_BYTES)
        self._elements.close()

    def _require(self, has_no_null: bool) -> None:
        if not has_no_null:
            raise BatchError(f'output column "{escaped(self._name)}": an array of NumPy cannot hold null')


class NpyWriter:
    """Writes the only column as an array."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self._file = file
        self._column = _Column(schema.field(0))

    def write(self, table: pa.RecordBatch) -> None:
        """Append the rows."""
        self._column.append(table.column(0))

    def close(self) -> None:
        """Write the array."""
        self._column.move_to(self._file)


class NpzWriter:
    """Writes each column as an array."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self._file = file
        self._columns = {field.name: _Column(field) for field in schema}

    def write(self, table: pa.RecordBatch) -> None:
        """Append the rows."""
        for name, column in self._columns.items():
            column.append(table.column(name))

    def close(self) -> None:
        """Write the arrays."""
        with zipfile.ZipFile(self._file, "w") as archive:
            for name, column in self._columns.items():
                with _member(archive, name) as member:
                    column.move_to(member)


def join_npy(parts: Sequence[Callable[[], BinaryIO]], file: BinaryIO, schema: pa.Schema) -> None:
    """Write the rows of all ``parts`` as one array."""
    kind = array_type(schema.field(0).type)
    kind.write_header(file, sum(_rows(open_part, None) for open_part in parts))
    for open_part in parts:
        with open_part() as part:
            _read_header(part)
            copyfileobj(part, file, _COPIED_BYTES)


def join_npz(parts: Sequence[Callable[[], BinaryIO]], file: BinaryIO, schema: pa.Schema) -> None:
    """Write the rows of all ``parts`` as one array for each column."""
    with zipfile.ZipFile(file, "w") as archive:
        for field in schema:
            with _member(archive, field.name) as member:
                array_type(field.type).write_header(member, sum(_rows(open_part, field.name) for open_part in parts))
                for open_part in parts:
                    with open_part() as part, zipfile.ZipFile(part) as own, own.open(f"{field.name}.npy") as elements:
                        _read_header(elements)
                        copyfileobj(elements, member, _COPIED_BYTES)


def _rows(open_part: Callable[[], BinaryIO], name: str | None) -> int:
    with open_part() as part:
        if name is None:
            return _read_header(part)
        with zipfile.ZipFile(part) as own, own.open(f"{name}.npy") as elements:
            return _read_header(elements)


def _read_header(file: IO[bytes]) -> int:
    """Read the header, and return the rows."""
    npy.read_magic(file)
    shape, _, _ = npy.read_array_header_1_0(file)
    return int(shape[0])


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    # With a constant time, so that equal rows give equal bytes.
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)

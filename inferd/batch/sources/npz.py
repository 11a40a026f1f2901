"""Read .npz files: archives of arrays, each of them a column."""

import weakref
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import IO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from inferd.batch.blocks import Chunk
from inferd.batch.errors import UnreadableFileError
from inferd.batch.ports import SourceFile
from inferd.batch.sources.arrays import ArrayHeader, chunks_of, read_header, read_up_to, with_rows
from inferd.batch.sources.columns import damage_text, file_schema, in_schema, lost_rows, stored_names
from inferd.batch.sources.passes import KeptPass
from inferd.batch.storage import raw_file
from inferd.plain_text import escaped, listed

_SUFFIX = ".npy"

#: Errors of `zipfile` about the content of a file: damage, and unsupported compression and encryption.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)

#: The bytes that are skipped at a time.
_SKIPPED_BYTES = 1 << 20


class NpzReader:
    """Reads arrays in step, from their beginning on, a chunk at a time.

    The arrays of ``columns``, or all if it is empty, must have the same number of rows. Consecutive parts are read in
    one pass, which is kept between them.
    """

    def __init__(self, columns: Sequence[str] = ()) -> None:
        self._used = columns
        self._kept: KeptPass[_Pass] = KeptPass()

    def schema(self, file: SourceFile) -> pa.Schema:
        """Return a column for each array of numbers or texts, and those of the path. Scalars are left out."""
        headers = _headers(file)
        self._rows(headers)
        return file_schema(file, _columns(headers))

    def spans(self, file: SourceFile) -> Sequence[int]:
        """Return the number of rows, as one span: arrays are read from their beginning.

        Reads the whole file to verify its checksums, which would otherwise be read after the rows were answered.
        """
        rows = self._rows(_headers(file))
        try:
            _verify(file.address, file.version)
        except _DAMAGE as error:
            raise UnreadableFileError(f"damaged: {damage_text(file, error)}") from error
        return [rows]

    def read(self, file: SourceFile, schema: pa.Schema, start: int, stop: int, rows: int) -> Iterator[Chunk]:
        """Yield the rows ``start`` to ``stop`` - 1; rows from damage on are errors."""
        headers = _headers(file)
        names = stored_names(file, schema, _columns(headers))
        row_bytes = sum(headers[name].row_bytes for name in names)
        key = (file.address, file.version, *names)
        position = start
        try:
            reading = self._kept.take(key, start) or _Pass(file, {name: headers[name] for name in names})
            for first, last in chunks_of(start, stop, rows, row_bytes):
                yield in_schema(file, schema, reading.read(first, last), np.arange(first, last))
                position = last
        except _DAMAGE as error:
            yield from lost_rows(file, schema, range(position, stop), f"damaged: {damage_text(file, error)}")
        else:
            self._kept.keep(key, stop, reading)

    def _rows(self, headers: Mapping[str, ArrayHeader]) -> int:
        """Return the number of rows of the arrays that are used. Raises `UnreadableFileError` if they differ."""
        used = {name: header for name, header in headers.items() if name in self._used} or headers
        lengths = {header.shape[0] for header in used.values()}
        if len(lengths) != 1:
            got = listed(f"{escaped(name)} {header.shape[0]}" for name, header in used.items()) or "none"
            advice = "name those to look at with --columns" if used else "there is nothing to read"
            raise UnreadableFileError(f"expected arrays of as many rows, got {got}; {advice}")
        return lengths.pop()


class _Pass:
    """One pass over the arrays. Not thread-safe."""

    def __init__(self, file: SourceFile, headers: Mapping[str, ArrayHeader]) -> None:
        self._headers = headers
        stream = raw_file(file.address)
        # Closes the stream with the last reference.
        weakref.finalize(self, stream.close)
        archive = zipfile.ZipFile(stream)
        self._streams = {name: _opened(archive, name) for name in headers}
        self._position = 0

    def read(self, start: int, stop: int) -> dict[str, pa.Array]:
        """Return the rows ``start`` to ``stop`` - 1; ``start`` is at least the last ``stop``."""
        columns = {name: header.column(self._rows(name, header, start, stop)) for name, header in self._headers.items()}
        self._position = stop
        return columns

    def _rows(self, name: str, header: ArrayHeader, start: int, stop: int) -> NDArray[np.generic]:
        stream = self._streams[name]
        skipped = (start - self._position) * header.row_bytes
        while skipped:
            skipped -= len(_exactly(stream, name, min(skipped, _SKIPPED_BYTES)))
        return np.frombuffer(_exactly(stream, name, (stop - start) * header.row_bytes), header.dtype)


def _exactly(stream: IO[bytes], name: str, size: int) -> bytes:
    content = read_up_to(stream, size)
    if len(content) < size:
        raise EOFError(f'the array "{escaped(name)}" has been cut')
    return content


def _opened(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    stream = archive.open(f"{name}{_SUFFIX}")
    read_header(stream)
    return stream


def _columns(headers: Mapping[str, ArrayHeader]) -> pa.Schema:
    return pa.schema([(name, header.column_type) for name, header in headers.items()])


def _headers(file: SourceFile) -> Mapping[str, ArrayHeader]:
    """Return the headers of the arrays by name. Raises `UnreadableFileError`."""
    try:
        return _read_headers(file.address, file.version)
    except _DAMAGE as error:
        raise UnreadableFileError(f"expected an archive of arrays: {damage_text(file, error)}") from error


@lru_cache(maxsize=64)
def _read_headers(address: str, version: str) -> Mapping[str, ArrayHeader]:  # noqa: ARG001  (part of the key)
    headers = {}
    problem = ""
    with raw_file(address) as file, zipfile.ZipFile(file) as archive:
        for member in archive.namelist():
            if member.endswith(_SUFFIX):
                name = member.removesuffix(_SUFFIX)
                with archive.open(member) as stream:
                    header = read_header(stream)
                if not header.shape:
                    continue
                try:
                    header.column_type  # noqa: B018  (raises for elements that no column has)
                except UnreadableFileError as error:
                    problem = f'the array "{escaped(name)}": {error}'
                    continue
                if header.is_fortran:
                    raise UnreadableFileError(
                        f'the array "{escaped(name)}" is in the order of Fortran, expected that of C; '
                        "save np.ascontiguousarray of it"
                    )
                headers[name] = with_rows(header)
    if problem and not headers:
        raise UnreadableFileError(problem)
    return headers


@lru_cache(maxsize=64)
def _verify(address: str, version: str) -> None:  # noqa: ARG001  (part of the key)
    """Raise one of `_DAMAGE` if a checksum of the archive is wrong."""
    with raw_file(address) as file, zipfile.ZipFile(file) as archive:
        damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f'the checksum of "{escaped(damaged)}" is wrong')

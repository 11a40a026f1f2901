"""Read archives of pictures, .tar and .tar.gz: rows are the members that are pictures, in order."""

import gzip
import tarfile
import weakref
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import BinaryIO, Self, cast

import pyarrow as pa

from inferd.batch.blocks import Chunk
from inferd.batch.errors import UnreadableFileError
from inferd.batch.ports import SourceFile
from inferd.batch.sources.columns import damage_text, file_schema, lost_rows, stored_names
from inferd.batch.sources.finding import is_picture
from inferd.batch.sources.images import COLUMNS, IMAGE, MOST_BYTES, Picture, chunks
from inferd.batch.sources.passes import KeptPass
from inferd.batch.storage import raw_file

_DAMAGE = (tarfile.TarError, zlib.error, EOFError, OSError, ValueError)

#: Errors of corrupt compressed content, of which the place is unknown.
_CORRUPTION = (zlib.error, gzip.BadGzipFile)

#: The bytes that are read at a time after the last member.
_DRAINED_BYTES = 1 << 20

_GZIP_MAGIC = b"\x1f\x8b"


class TarReader:
    """Reads archives from their beginning. Consecutive parts are read in one pass, which is kept between them.

    A truncated archive has the pictures before the cut, and one more row, an error. An archive with corrupt compressed
    content is not read.
    """

    def __init__(self) -> None:
        self._kept: KeptPass[_Pass] = KeptPass()

    def schema(self, file: SourceFile) -> pa.Schema:
        """Return the columns of pictures."""
        return file_schema(file, COLUMNS)

    def spans(self, file: SourceFile) -> Sequence[int]:
        """Return the number of pictures, as one span: members are found one after the other."""
        try:
            return [_count(file.address, file.version)]
        except _DAMAGE as error:
            raise UnreadableFileError(f"expected an archive: {damage_text(file, error)}") from error

    def read(self, file: SourceFile, schema: pa.Schema, start: int, stop: int, rows: int) -> Iterator[Chunk]:
        """Yield the pictures ``start`` to ``stop`` - 1. They are not decoded here."""
        has_image = IMAGE in stored_names(file, schema, COLUMNS)
        key = (file.address, file.version)
        reading = self._kept.take(key, start) or _Pass(file.address)
        yield from chunks(file, schema, start, rows, reading.pictures(start, stop, has_image=has_image))
        if reading.damage is not None:
            text = f"damaged, with what comes after it: {damage_text(file, reading.damage)}"
            yield from lost_rows(file, schema, range(reading.position, stop), text)
        else:
            self._kept.keep(key, stop, reading)


class _Pass:
    """One pass over an archive. Not thread-safe.

    ``position`` is the next picture; ``damage`` is the error that ended the pass.
    """

    def __init__(self, address: str) -> None:
        self.position = 0
        self.damage: Exception | None = None
        stream = raw_file(address)
        # Closes the stream with the last reference.
        weakref.finalize(self, stream.close)
        self._archive = _opened(stream)

    def pictures(self, start: int, stop: int, *, has_image: bool) -> Iterator[Picture]:
        """Yield the pictures ``start`` to ``stop`` - 1, without their bytes unless ``has_image``."""
        try:
            while self.position < stop:
                member = _next(self._archive)
                if member is None:
                    return
                picture = self._picture(member, has_image=has_image) if self.position >= start else None
                # Counted after it was read, as it may be damaged.
                self.position += 1
                if picture is not None:
                    yield picture
        except _DAMAGE as error:
            self.damage = error

    def _picture(self, member: tarfile.TarInfo, *, has_image: bool) -> Picture:
        if not has_image:
            return member.name, b""
        if member.size > MOST_BYTES:
            return member.name, None
        content = cast(BinaryIO, self._archive.extractfile(member)).read()
        if len(content) < member.size:
            raise tarfile.ReadError(f"{member.name} has been cut")
        return member.name, content


class _Member(tarfile.TarInfo):
    """A member whose damaged or missing header is an error, where `tarfile` would assume the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str | None, errors: str) -> Self:
        """Return the member of a header."""
        try:
            return super().frombuf(buf, encoding, errors)  # type: ignore[arg-type]  # its stub is too narrow
        except tarfile.HeaderError as error:
            # A block of zeros is the end. A file without one may have been truncated between two members.
            if buf and not any(buf):
                raise
            raise tarfile.ReadError(str(error) if buf else "the archive has no end") from None


def _opened(stream: BinaryIO) -> tarfile.TarFile:
    is_compressed = stream.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    stream.seek(0)
    return tarfile.TarFile(fileobj=gzip.GzipFile(fileobj=stream) if is_compressed else stream, tarinfo=_Member)


def _next(archive: tarfile.TarFile) -> tarfile.TarInfo | None:
    """Return the next picture; None at the end."""
    while (member := archive.next()) is not None:
        # Members are not kept: they may not fit into memory.
        archive.members.clear()  # type: ignore[attr-defined]  # an attribute that its stub lacks
        if member.isfile() and is_picture(member.name) and not _is_hidden(member.name):
            return member
    return None


def _is_hidden(name: str) -> bool:
    """Return True for names that are left out, as in folders: some programs add hidden files."""
    return any(part.startswith((".", "_")) for part in name.split("/") if part != ".")


@lru_cache(maxsize=64)
def _count(address: str, version: str) -> int:  # noqa: ARG001  (part of the key)
    """Count the pictures, and one more row for all content after damage."""
    count = 0
    with raw_file(address) as stream:
        archive = _opened(stream)
        try:
            while _next(archive) is not None:
                count += 1
        except _DAMAGE as error:
            if isinstance(error, _CORRUPTION) or isinstance(error.__context__, _CORRUPTION):
                raise
            return count + 1
        # Verifies the checksum at the end, which would otherwise fail after the pictures were answered.
        while isinstance(archive.fileobj, gzip.GzipFile) and archive.fileobj.read(_DRAINED_BYTES):
            pass
    return count

"""The bytes of text files, decompressed."""

import gzip
import zlib
from collections.abc import Callable, Iterator

import pyarrow as pa

from inferd.batch.errors import UnreadableFileError
from inferd.batch.ports import SourceFile
from inferd.batch.sources.columns import DAMAGE, damage_text
from inferd.batch.sources.native_files import native_file, raw_file

_STEP_BYTES = 1 << 20
#: What is left of a step is lost where a file is damaged.
_ZSTD_STEP_BYTES = 64 << 10

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def is_compressed(file: SourceFile) -> bool:
    """Whether ``file`` can only be read from its beginning."""
    return file.address.lower().endswith((".gz", ".zst"))


def texts_of(file: SourceFile, offset: int = 0) -> Iterator[bytes]:
    """Yield the bytes of ``file`` from ``offset`` on, for files that are not compressed; what marks UTF-8 is spaces.

    Raises `UnreadableFileError` where it is damaged, after the bytes before, and `BatchError` for storage.
    """
    steps = _steps(file, offset)
    try:
        if offset == 0:
            first = next(steps, b"")
            if first.startswith(_UTF16):
                raise UnreadableFileError("expected text in UTF-8, got UTF-16")
            # As many bytes, so that offsets are those of the file.
            yield first.replace(_BOM, b"\n\n\n", 1) if first.startswith(_BOM) else first
        yield from steps
    except (*DAMAGE, EOFError, zlib.error) as error:
        raise UnreadableFileError(damage_text(file, error)) from error


def _steps(file: SourceFile, offset: int) -> Iterator[bytes]:
    name = file.address.lower()
    if name.endswith(".zst"):
        with pa.CompressedInputStream(native_file(file.address), "zstd") as stream:
            yield from _until_empty(lambda: stream.read(_ZSTD_STEP_BYTES))
    elif name.endswith(".gz"):
        with raw_file(file.address) as raw, gzip.GzipFile(fileobj=raw) as unpacked:
            # `read` loses what comes right before damage.
            yield from _until_empty(lambda: unpacked.read1(_STEP_BYTES))
    else:
        with raw_file(file.address) as raw:
            raw.seek(offset)
            yield from _until_empty(lambda: raw.read(_STEP_BYTES))


def _until_empty(read: Callable[[], bytes]) -> Iterator[bytes]:
    while step := read():
        yield step

"""Find the input files, their format and its reader, and the columns in their paths."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import cast
from urllib.parse import unquote

from inferd.batch.errors import UsageError
from inferd.batch.ports import Reader, SourceFile
from inferd.batch.storage import FileInfo, list_files, shown

_SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "parquet": (".parquet", ".pq"),
    "arrow": (".arrow", ".feather", ".ipc"),
    "csv": (".csv", ".csv.gz", ".csv.zst", ".tsv", ".tsv.gz", ".tsv.zst"),
    "jsonl": (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".ndjson.gz", ".ndjson.zst"),
    "npy": (".npy",),
    "npz": (".npz",),
    "tar": (".tar", ".tar.gz", ".tgz"),
    "images": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
}

_WILDCARD = re.compile(r"[*?\[]")
_SLASHES = re.compile("/+")
_HIVE_FOLDER = re.compile(r"([^=]+)=(.*)")
#: What Hive and Spark write for null.
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_INTEGER = re.compile(r"-?\d{1,9}")

#: The module and the class of each reader, imported when needed.
_READERS = {
    "parquet": ("parquet", "ParquetReader"),
    "arrow": ("arrow", "ArrowReader"),
    "csv": ("csv", "CsvReader"),
    "jsonl": ("jsonl", "JsonlReader"),
    "npy": ("arrays", "NpyReader"),
    "npz": ("npz", "NpzReader"),
    "images": ("images", "ImagesReader"),
    "tar": ("tar", "TarReader"),
}


def find_sources(addresses: Sequence[str], given_format: str | None) -> tuple[SourceFile, ...]:
    """Return the files at ``addresses``, which are files, folders, globs and URLs, each file once.

    The format is ``given_format``, or that of the suffixes. All pictures of one address are one source. Raises
    `UsageError`, and `BatchError` for storage.
    """
    files: dict[str, SourceFile] = {}
    for address in addresses:
        for file in _found(address, given_format):
            files.setdefault(file.address, file)
    found = list(files.values())
    for file in found:
        if file.format != found[0].format:
            raise UsageError(
                f"expected files of one format, got {found[0].format} ({shown(found[0].address)}) and {file.format} "
                f"({shown(file.address)}); run a job for each, or say with --input-format what they are"
            )
    return _with_partition_types(found)


def is_pattern(text: str) -> bool:
    """Return True if ``text`` has wildcards."""
    return _WILDCARD.search(text) is not None


def is_picture(address: str) -> bool:
    """Return True for the suffix of a picture."""
    return address.lower().endswith(_SUFFIXES["images"])


def _found(address: str, given_format: str | None) -> list[SourceFile]:
    listing = list_files(address)
    if not listing:
        raise UsageError(f"{shown(address)}: expected files, got none")
    pictures = [each for each in listing if is_picture(each.address)]
    if given_format == "images" or (given_format is None and pictures):
        # Other files beside pictures are ignored, unless their format could be read.
        tables = [each for each in listing if given_format is None and _format_of(each.address) not in (None, "images")]
        return [_folder_of(address, pictures), *(_file(each, None, {}) for each in tables)]
    paths = [_path(each.address) for each in listing]
    base = _base(_path(address), paths)
    return [_file(each, given_format, _partition(path, base)) for each, path in zip(listing, paths, strict=True)]


def _file(info: FileInfo, given_format: str | None, partition: Mapping[str, str | None]) -> SourceFile:
    file_format = given_format or _format_of(info.address)
    if file_format is None:
        known = " ".join(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes)
        raise UsageError(f"{shown(info.address)}: expected a suffix of {known}; or say --input-format")
    return SourceFile(
        address=info.address, format=file_format, size=info.size, version=info.version, partition=partition
    )


def _format_of(address: str) -> str | None:
    name = address.lower()
    return next((each for each, suffixes in _SUFFIXES.items() if name.endswith(suffixes)), None)


def _folder_of(address: str, pictures: Sequence[FileInfo]) -> SourceFile:
    """Return ``pictures`` as one source, as there may be too many to be files of a plan."""
    if not pictures:
        raise UsageError(f"{shown(address)}: expected pictures ({' '.join(_SUFFIXES['images'])}), got none")
    size = sum(each.size for each in pictures)
    return SourceFile(address=address, format="images", size=size, version=folder_version(pictures))


def folder_version(pictures: Sequence[FileInfo]) -> str:
    """Return a hash of the addresses, sizes and versions of ``pictures``."""
    digest = hashlib.sha256()
    for each in pictures:
        digest.update(f"{each.address}\0{each.size}\0{each.version}\n".encode())
    return digest.hexdigest()


def _path(address: str) -> str:
    """Normalize ``address``: storage returns some with repeated slashes."""
    return _SLASHES.sub("/", address)


def _base(pattern: str, paths: Sequence[str]) -> str:
    """Return the prefix of ``paths`` that ``pattern`` names; folders after it may be columns."""
    wildcard = _WILDCARD.search(pattern)
    # A file or folder may have wildcards in its name.
    if wildcard is None or all(path.startswith(pattern) for path in paths):
        return pattern
    return pattern[: pattern.rfind("/", 0, wildcard.start()) + 1]


def _partition(path: str, base: str) -> dict[str, str | None]:
    """Return the columns in folders of ``path`` below ``base``, such as ``year=2026/month=05/``, as texts."""
    folders = path.removeprefix(base).split("/")[:-1] if path.startswith(base) else []
    found = (_HIVE_FOLDER.fullmatch(folder) for folder in folders)
    pairs = ((unquote(match[1]), unquote(match[2])) for match in found if match)
    return {name: None if value == _HIVE_NULL else value for name, value in pairs}


def _with_partition_types(files: list[SourceFile]) -> tuple[SourceFile, ...]:
    """Return ``files`` with the same partition columns: integers where all values are integers, else texts."""
    names = dict.fromkeys(name for file in files for name in file.partition)
    columns = {name: [file.partition.get(name) for file in files] for name in names}
    for name, values in columns.items():
        if all(value is None or _INTEGER.fullmatch(str(value)) for value in values):
            columns[name] = [None if value is None else int(str(value)) for value in values]
    return tuple(
        replace(file, partition={name: values[index] for name, values in columns.items()})
        for index, file in enumerate(files)
    )


def reader_for(file_format: str, *, delimiter: str | None = None, columns: Sequence[str] = ()) -> Reader:
    """Return a reader of ``file_format``, one of `inferd.batch.options.InputFormat`.

    ``delimiter`` separates the fields of CSV; None for the default. ``columns`` are the only columns to use; empty for
    all.
    """
    module, name = _READERS[file_format]
    make = getattr(import_module(f"inferd.batch.sources.{module}"), name)
    match file_format:
        case "csv":
            reader = make(delimiter)
        case "npz":
            reader = make(columns)
        case _:
            reader = make()
    return cast("Reader", reader)

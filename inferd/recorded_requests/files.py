"""Read files of recorded requests, ``.json`` and ``.npz``, without validating the requests."""

import json
import math
import re
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from inferd.minus_zero import parse_int
from inferd.plain_text import clipped
from inferd.recorded_requests.arrays import Array, quote
from inferd.small_files import open_file, read_bytes

#: Limit for all requests together. A few requests are enough, and all are kept in memory.
_MAX_BYTES = 256 * 1024 * 1024

_NUMBERED_KEY = re.compile(r"(0|[1-9][0-9]{0,8})/(.+)", re.DOTALL)


def read_requests(path: Path, inputs: Collection[str]) -> Sequence[Any]:
    """Return the requests of a file. Raises ValueError or OSError."""
    match path.suffix:
        case ".json":
            requests = _json_requests(read_bytes(path, _MAX_BYTES))
        case ".npz":
            requests = _group(_arrays(path), inputs)
        case _:
            msg = "expected a file named .json or .npz"
            raise ValueError(msg)
    if not requests:
        msg = "expected requests, got none"
        raise ValueError(msg)
    return requests


def _json_requests(content: bytes) -> Sequence[Any]:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        msg = f"invalid JSON: {error}"
        raise ValueError(msg) from None
    if not text.strip():
        return []
    value = parse_json(text)
    return value if isinstance(value, list) else [value]


def _arrays(path: Path) -> dict[str, Array]:
    """Return the arrays of an ``.npz`` file by name."""
    arrays: dict[str, Array] = {}
    # Not with np.load, which accepts duplicate entries, wrong checksums and entries that are no arrays.
    with open_file(path) as file, _archive(file) as archive:
        entries = archive.infolist()
        # Decompression may multiply the size by a thousand.
        nbytes = sum(entry.file_size for entry in entries)
        if nbytes > _MAX_BYTES:
            msg = f"expected arrays of at most {_MAX_BYTES} bytes, got {nbytes}"
            raise ValueError(msg)
        for entry in entries:
            if entry.is_dir():
                continue
            name = entry.filename.removesuffix(".npy")
            if name == entry.filename:
                msg = f"expected entries named .npy, got {quote(name)}"
                raise ValueError(msg)
            if name in arrays:
                msg = f"expected each entry once, got {quote(entry.filename)} again"
                raise ValueError(msg)
            arrays[name] = _array(archive, entry)
    return arrays


def _archive(file: BinaryIO) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001  (damaged archives raise anything)
        msg = f"invalid archive of arrays: {_reason(error)}"
        raise ValueError(msg) from None


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Array:
    try:
        with archive.open(entry) as file:
            # Without pickles, which can run any code.
            array: Array = np.lib.format.read_array(file, allow_pickle=False)
            # The checksum is verified at the end of the entry.
            rest = file.read(1)
    except Exception as error:  # noqa: BLE001  (as above)
        msg = f"entry {quote(entry.filename)} cannot be read: {_reason(error)}"
        raise ValueError(msg) from None
    if rest:
        msg = f"expected one array in entry {quote(entry.filename)}, got trailing bytes"
        raise ValueError(msg)
    return array


def _group(arrays: Mapping[str, Array], inputs: Collection[str]) -> list[dict[str, Array]]:
    """Group ``arrays`` into requests by their keys."""
    single: dict[str, Array] = {}
    numbered: dict[int, dict[str, Array]] = {}
    for key, array in arrays.items():
        match = None if key in inputs else _NUMBERED_KEY.fullmatch(key)
        if match:
            numbered.setdefault(int(match[1]), {})[match[2]] = array
        else:
            single[key] = array
    if not numbered:
        return [single] if single else []
    if single:
        msg = f"expected the request's number in front of every name or of none, got {quote(next(iter(single)))}"
        raise ValueError(msg)
    missing = next((number for number in range(len(numbered)) if number not in numbered), None)
    if missing is not None:
        msg = f"expected requests numbered from 0 on, got number {max(numbered)} without number {missing}"
        raise ValueError(msg)
    return [numbered[number] for number in range(len(numbered))]


def parse_json(text: str) -> object:
    """Parse JSON strictly: duplicate keys are errors. NaN and Infinity are accepted.

    Raises:
        ValueError: The text is not JSON, or nested too deeply. The message says where.
    """
    try:
        return json.loads(text, parse_int=parse_int, parse_float=_parse_float, object_pairs_hook=_object)
    except ValueError as error:
        msg = f"invalid JSON: {error}"
        raise ValueError(msg) from None
    except RecursionError:
        msg = "invalid JSON: values are nested too deeply"
        raise ValueError(msg) from None


def _parse_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        msg = f"{clipped(text)} is out of range of FP64"
        raise ValueError(msg)
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        msg = f"duplicate key {quote(next(key for key in keys if keys.count(key) > 1))}"
        raise ValueError(msg)
    return values


def _reason(error: Exception) -> str:
    # In one line: numpy's messages may have several.
    return " ".join(str(error).split()) or type(error).__name__

"""Encode answers to inference requests, in JSON, binary, or both."""

from collections.abc import Iterator, Mapping
from functools import lru_cache

import numpy as np
import orjson
from numpy.typing import NDArray

from inferd import dtypes
from inferd.api import tensors
from inferd.api.codec import Response
from inferd.api.json_messages import JSON_HEADERS
from inferd.api.oip.classification import with_classes
from inferd.api.rest.json_data import elements_of
from inferd.http.messages import JSON_LENGTH_HEADER, HttpBody

_Buffer = bytes | memoryview

#: Larger bodies stay in parts: joining them would hold the interpreter lock for long.
_MAX_JOINED_BYTES = 128 * 1024
#: Smaller parts of a large body are joined.
_MIN_PART_BYTES = 64 * 1024
#: An output is copied if the array that it views, such as that of its batch, is more than this many times larger.
_MAX_KEPT = 2


def encode(response: Response) -> HttpBody:
    """Return the body of an answer: JSON, followed by the binary outputs.

    Raises `InvalidInputError` if JSON cannot hold an output.
    """
    model, form = response.model, response.form
    outputs: Mapping[str, NDArray[np.generic]] = response.result.outputs
    if form.classes:
        outputs = with_classes(outputs, form.classes, model.require_signature())
    parts: list[_Buffer] = [_names(model.name, model.version)]
    if response.request_id:
        parts += (b',"id":', orjson.dumps(response.request_id))
    binary: list[_Buffer] = []
    separator = b',"outputs":['
    for name, array in outputs.items():
        parts += (separator, _output(name, array.dtype, array.shape))
        separator = b","
        if form.as_lists and name not in form.raw:
            parts += (b',"data":[', *elements_of(name, array), b"]}")
        else:
            raw = _raw(array)
            parts.append(b',"parameters":{"binary_data_size":%d}}' % len(raw))
            binary.append(raw)
    parts.append(b"]}" if outputs else b',"outputs":[]}')
    json_length = sum(map(len, parts))
    headers = _binary_headers(json_length) if binary else JSON_HEADERS
    if json_length + sum(map(len, binary)) <= _MAX_JOINED_BYTES:
        return HttpBody(b"".join(parts + binary), headers)
    return HttpBody(b"", headers, rest=tuple(_large(parts + binary)))


def _raw(array: NDArray[np.generic]) -> _Buffer:
    """Return the elements of ``array``; copied only if a view would keep much more memory."""
    raw = tensors.to_bytes(array)
    if isinstance(raw, memoryview) and isinstance(array.base, np.ndarray) and array.base.nbytes > _MAX_KEPT * len(raw):
        return bytes(raw)
    return raw


def _large(parts: list[_Buffer]) -> Iterator[_Buffer]:
    """Yield ``parts`` with the small ones joined."""
    small: list[_Buffer] = []
    small_bytes = 0
    for part in parts:
        if small and (len(part) >= _MIN_PART_BYTES or small_bytes >= _MIN_PART_BYTES):
            yield b"".join(small)
            small, small_bytes = [], 0
        if len(part) >= _MIN_PART_BYTES:
            yield part
        else:
            small.append(part)
            small_bytes += len(part)
    if small:
        yield b"".join(small)


@lru_cache(maxsize=256)
def _names(model: str, version: str) -> bytes:
    return orjson.dumps({"model_name": model, "model_version": version})[:-1]


@lru_cache(maxsize=1024)
def _output(name: str, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> bytes:
    """Encode the members of an output before its elements."""
    return orjson.dumps({"name": name, "datatype": dtypes.BY_NUMPY[dtype].name, "shape": shape})[:-1]


@lru_cache(maxsize=1024)
def _binary_headers(json_length: int) -> tuple[tuple[str, str], ...]:
    return (("Content-Type", "application/octet-stream"), (JSON_LENGTH_HEADER, str(json_length)))

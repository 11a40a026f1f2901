"""Answers to inference requests, in JSON, binary, or both."""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import orjson
from numpy.typing import NDArray

from inferd import dtypes
from inferd.api import tensors
from inferd.api.codec import Response
from inferd.api.oip.classification import with_classes
from inferd.api.rest.json_answer import data_of
from inferd.api.rest.requests import JSON_LENGTH
from inferd.http.messages import HttpBody

_Buffer = bytes | memoryview
_JSON_HEADERS = (("Content-Type", "application/json"),)


def encode(response: Response) -> HttpBody:
    """Return the body of an answer: JSON, and behind it the outputs that are to be binary.

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
            parts += (b',"data":[', *data_of(name, array), b"]}")
        else:
            raw = tensors.to_bytes(array)
            parts.append(b',"parameters":{"binary_data_size":%d}}' % len(raw))
            binary.append(raw)
    parts.append(b"]}" if outputs else b',"outputs":[]}')
    if not binary:
        return HttpBody(b"".join(parts), _JSON_HEADERS)
    return HttpBody(b"".join(parts + binary), _binary_headers(sum(map(len, parts))))


@lru_cache(maxsize=256)
def _names(model: str, version: str) -> bytes:
    return orjson.dumps({"model_name": model, "model_version": version})[:-1]


@lru_cache(maxsize=1024)
def _output(name: str, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> bytes:
    """Encode what describes an output, up to its elements."""
    return orjson.dumps({"name": name, "datatype": dtypes.BY_NUMPY[dtype].name, "shape": shape})[:-1]


@lru_cache(maxsize=1024)
def _binary_headers(json_length: int) -> tuple[tuple[str, str], ...]:
    return (("Content-Type", "application/octet-stream"), (JSON_LENGTH, str(json_length)))

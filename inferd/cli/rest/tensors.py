"""Requests and answers of the REST form, with tensors in binary. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inferd.client import Internal
from inferd.client.codec import array_of, elements_of
from inferd.dtypes import BY_NAME, BY_PROTO, BYTES, DataType

#: The length of the JSON before the tensors.
LENGTH_HEADER = "Inference-Header-Content-Length"


def write_request(inputs: Mapping[str, ArrayLike], outputs: Sequence[str]) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a request. Raises `InvalidInput` for arrays of a type that the protocol lacks."""
    tensors, raws = [], []
    for name, value in inputs.items():
        number, shape, raw = elements_of(name, value)
        size = {"binary_data_size": len(raw)}
        tensors.append({"name": name, "shape": shape, "datatype": BY_PROTO[number].name, "parameters": size})
        raws.append(raw)
    request: dict[str, Any] = {"inputs": tensors, "parameters": {"binary_data_output": True}}
    if outputs:
        request["outputs"] = [{"name": name} for name in outputs]
    header = json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/octet-stream", LENGTH_HEADER: str(len(header))}
    return b"".join((header, *raws)), headers


def read_answer(headers: Mapping[str, str], body: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the JSON of an answer, and its outputs. Raises `Internal` for one that contradicts itself."""
    length = _length(headers.get(LENGTH_HEADER), len(body))
    try:
        answer = json.loads(body[:length])
        return answer, dict(_outputs(answer["outputs"], memoryview(body)[length:]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Internal(f"expected an answer of the Open Inference Protocol, got other content: {error}") from error


def _length(text: str | None, most: int) -> int:
    if text is None:
        return most
    if not (text.isascii() and text.isdecimal() and int(text) <= most):
        raise Internal(f"{LENGTH_HEADER}: expected at most {most}, the length of the answer, got {text}")
    return int(text)


def _outputs(outputs: Sequence[Mapping[str, Any]], raw: memoryview) -> Iterator[tuple[str, NDArray[Any]]]:
    position = 0
    for output in outputs:
        name, shape, datatype = output["name"], tuple(output["shape"]), BY_NAME[output["datatype"]]
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            yield name, _of_json(output["data"], datatype, shape)
            continue
        # A part that is shorter than its size does not hold the shape either.
        yield name, array_of(name, datatype.proto, shape, bytes(raw[position : position + size]))
        position += size


def _of_json(data: object, datatype: DataType, shape: tuple[int, ...]) -> NDArray[Any]:
    if datatype is not BYTES:
        return np.asarray(data, datatype.numpy).reshape(shape)
    flat = np.array([data, None], dtype=object)[:-1] if isinstance(data, str) else np.asarray(data, object).ravel()
    array = np.empty(flat.size, object)
    array[:] = [str(element).encode() for element in flat]
    return array.reshape(shape)

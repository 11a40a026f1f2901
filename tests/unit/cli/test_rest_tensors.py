"""Tensors in the binary form of REST, to and from arrays."""

import json

import numpy as np
import pytest

from inferd import dtypes
from inferd.cli.rest.tensors import LENGTH_HEADER, read_answer, write_request
from inferd.client import InvalidInput


def _array(datatype):
    if datatype is dtypes.BYTES:
        elements = np.empty(4, object)
        elements[:] = [b"", b"a\0", "ü".encode(), b"\xff"]
        return elements.reshape(2, 2)
    bits = np.frombuffer(bytes(range(1, 65)), np.uint8)
    return (bits % 2 == 0).reshape(4, 16) if datatype.name == "BOOL" else bits.view(datatype.numpy).reshape(2, -1)


@pytest.mark.parametrize("datatype", dtypes.ALL, ids=lambda datatype: datatype.name)
def test_outputs_are_the_inputs_bit_for_bit(datatype):
    """Of every type, behind another tensor; NaN and empty elements included."""
    arrays = {"first": np.arange(3, dtype=np.int16), "second": _array(datatype)}
    body, headers = write_request(arrays, ())
    # What is sent has the form of an answer, but for the name.
    length = int(headers[LENGTH_HEADER])
    answer = json.loads(body[:length])
    content = json.dumps({"outputs": answer["inputs"]}).encode()
    _, outputs = read_answer({LENGTH_HEADER: str(len(content))}, content + body[length:])
    assert list(outputs) == ["first", "second"]
    for name, array in arrays.items():
        assert (outputs[name].dtype, outputs[name].shape) == (array.dtype, array.shape)
        assert outputs[name].tolist() == array.tolist() or outputs[name].tobytes() == array.tobytes()


def test_inputs_are_sent_in_order_whatever_their_memory():
    """Little-endian, in row-major order."""
    arrays = {"a": np.arange(6, dtype=">i4").reshape(2, 3).T, "b": np.zeros((0, 2), np.float32)}
    body, headers = write_request(arrays, ["y"])
    length = int(headers[LENGTH_HEADER])
    content = json.loads(body[:length])
    assert [(each["shape"], each["parameters"]["binary_data_size"]) for each in content["inputs"]] == [
        ([3, 2], 24),
        ([0, 2], 0),
    ]
    assert np.frombuffer(body[length:], "<i4").tolist() == [0, 3, 1, 4, 2, 5]
    assert content["outputs"] == [{"name": "y"}]


def test_rejects_types_that_the_protocol_lacks():
    """Before anything is sent."""
    with pytest.raises(InvalidInput, match='input "x": dtype complex64 is not supported'):
        write_request({"x": np.zeros(1, np.complex64)}, ())

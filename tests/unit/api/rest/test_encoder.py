"""Answers over HTTP, as JSON and binary."""

import numpy as np
import orjson
import pytest

from inferd.api.codec import RAW, Response, ResponseForm
from inferd.api.rest.codec import RestCodec
from inferd.api.tensors import object_array
from inferd.batching.request import BatchTiming, InferenceResult
from inferd.errors import InvalidInputError
from tests.unit.api.rest.bench import Model

TIMING = BatchTiming(started_at=0.0, stack_s=0.0, run_s=0.0, rows=1)
LISTS = ResponseForm(as_lists=True)
Y = np.array([[1, 0.1]], np.float32)
T = object_array(["é".encode(), b""])


def _encode(form, outputs, request_id=""):
    response = Response(Model(), request_id, form, InferenceResult(outputs, TIMING, queue_s=0.0))
    body = RestCodec().encode(response)
    return body, dict(body.headers)


def test_json():
    """As the protocol has it, with the id of the request."""
    body, headers = _encode(LISTS, {"y": Y, "t": T}, 'a"')
    assert bytes(body) == (
        b'{"model_name":"m","model_version":"1","id":"a\\"","outputs":['
        b'{"name":"y","datatype":"FP32","shape":[1,2],"data":[1.0,0.1]},'
        b'{"name":"t","datatype":"BYTES","shape":[2],"data":["\xc3\xa9",""]}]}'
    )
    assert headers == {"Content-Type": "application/json"}


@pytest.mark.parametrize("form", [RAW, ResponseForm(as_lists=True, raw=frozenset({"t"}))])
def test_binary_behind_json(form):
    """In the order of the outputs, with the size of each; the header says where they begin."""
    body, headers = _encode(form, {"t": T, "y": Y})
    length = int(headers["Inference-Header-Content-Length"])
    t, y = orjson.loads(body[:length])["outputs"]
    assert t == {"name": "t", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 10}}
    raw = b"\2\0\0\0\xc3\xa9\0\0\0\0"
    if form is RAW:
        assert y["parameters"] == {"binary_data_size": 8}
        raw += Y.tobytes()
    else:
        assert y["data"] == [1, 0.1]
    assert body[length:] == raw
    assert headers["Content-Type"] == "application/octet-stream"


def test_no_outputs():
    """It is JSON all the same."""
    assert orjson.loads(bytes(_encode(RAW, {})[0])) == {"model_name": "m", "model_version": "1", "outputs": []}


def test_no_numbers():
    """NaN and the infinities are strings, as JSON has no numbers for them, among numbers as they are."""
    array = np.array([np.nan, 1e-45, -np.inf, np.inf, -0.0], np.float32)
    body, _ = _encode(LISTS, {"y": array})
    assert body.endswith(b'"data":["NaN",1e-45,"-Infinity","Infinity",-0.0]}]}')


def test_bytes_that_are_no_text():
    """They are refused, rather than changed: the request can ask for them in binary."""
    with pytest.raises(InvalidInputError, match='output "t": element 1 is not UTF-8') as refused:
        _encode(LISTS, {"t": object_array([b"a", b"\xff"])})
    assert refused.value.field == 'parameters["binary_data_output"]'
    assert _encode(RAW, {"t": object_array([b"a", b"\xff"])})[0].endswith(b"\1\0\0\0\xff")


def test_classes():
    """In JSON and in binary."""
    content = [b"1.000000:0", b"0.100000:1"]
    for as_lists in (True, False):
        body, headers = _encode(ResponseForm(as_lists=as_lists, classes={"y": 2}), {"y": Y})
        if as_lists:
            assert orjson.loads(bytes(body))["outputs"][0]["data"] == [text.decode() for text in content]
        else:
            raw = body[int(headers["Inference-Header-Content-Length"]) :]
            assert raw == b"".join(len(text).to_bytes(4, "little") + text for text in content)


def test_heads_are_not_mixed_up():
    """Of outputs and models of the same names, one after the other."""
    for dtype, name in ((np.int8, "INT8"), (np.bool_, "BOOL"), (np.float16, "FP16")):
        for shape in ([2, 3], [3, 2]):
            body, _ = _encode(RAW, {"y": np.zeros(shape, dtype)})
            (output,) = _heads(body)
            assert (output["datatype"], output["shape"]) == (name, shape)


def _heads(body):
    length = int(dict(body.headers)["Inference-Header-Content-Length"])
    return orjson.loads(body[:length])["outputs"]


@pytest.mark.parametrize("sign", [1, -1])
def test_digits_survive_being_read_as_a_double(sign):
    """The shortest digits of one number do not, and digits of it as a double are written instead."""
    number = np.float32(sign * float.fromhex("0x1.5c87fap-84"))
    body, _ = _encode(LISTS, {"y": np.array([number, 0.1], np.float32)})
    read = orjson.loads(bytes(body))["outputs"][0]["data"]
    assert np.float32(read[0]) == number
    assert body.endswith(b"7.038530691851209e-26,0.1]}]}")


@pytest.mark.parametrize("form", [RAW, LISTS])
def test_large_answer_is_in_parts(form):
    """Its bytes are those of a small one; an output of its own memory is not copied."""
    outputs = {name: np.full((300, 300), 7, np.int32) for name in ("y", "z")}
    body, headers = _encode(form, {**outputs, "t": T})
    whole = b"".join((body, *body.rest))
    length = int(headers.get("Inference-Header-Content-Length", len(whole)))
    described = orjson.loads(whole[:length])["outputs"]
    assert [output["name"] for output in described] == ["y", "z", "t"]
    if form is LISTS:
        assert described[1]["data"] == [7] * 90_000
    else:
        assert whole[length:].startswith(outputs["y"].tobytes() + outputs["z"].tobytes() + b"\2\0\0\0\xc3\xa9")
        views = [part for part in body.rest if isinstance(part, memoryview)]
        assert all(np.shares_memory(view, array) for view, array in zip(views, outputs.values(), strict=True))


def test_row_of_a_batch_does_not_keep_the_others():
    """A slow client would hold their memory."""
    batch = np.zeros((64, 100_000), np.float32)
    body, _ = _encode(RAW, {"y": batch[3:4]})
    assert not any(np.shares_memory(np.frombuffer(part, np.uint8), batch) for part in body.rest)

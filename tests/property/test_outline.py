"""The outline of a request is the request without the contents of its tensors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd.api.oip.codec import OpenInferenceCodec
from inferd.api.v1.codec import InferenceCodec
from tests.property.test_decoder_fuzz import oip_requests, v1_requests
from tests.unit.api.fakes import CountedBytes

V1, OIP = InferenceCodec(), OpenInferenceCodec()
LISTS = ("raw", "bools", "ints", "uints", "floats", "strings", "bytes_values")


@given(v1_requests() | oip_requests())
def test_outline_has_all_but_the_contents(request_):
    """So that the header, the parameters and the shapes are those of the request."""
    message = request_.SerializeToString()
    is_v1 = isinstance(request_, v1.InferRequest)
    outline = (V1 if is_v1 else OIP).scanner.outline(message)
    if is_v1:
        for tensor in request_.inputs:
            for name in LISTS:
                tensor.ClearField(name)
    else:
        del request_.raw_input_contents[:]
        for tensor in request_.inputs:
            if tensor.HasField("contents"):
                tensor.contents.Clear()
    assert outline is None or type(request_).FromString(outline) == request_


@given(st.binary(max_size=100))
def test_any_bytes_have_an_outline_or_none(message):
    """Never an error."""
    for codec in (V1, OIP):
        outline = codec.scanner.outline(message)
        assert outline is None or len(outline) <= len(message)


@pytest.mark.parametrize(
    "message",
    [
        v1.InferRequest(model="m", inputs=[v1.Tensor(name="x", raw=bytes(1_000_000))]),
        v1.InferRequest(model="m", inputs=[v1.Tensor(name="x", floats=[0.5] * 100_000)]),
        v1.InferRequest(model="m", inputs=[v1.Tensor(name="x", strings=["a"] * 100_000)]),
        v1.InferRequest(model="m" * 1_000_000),
        oip.ModelInferRequest(model_name="m", raw_input_contents=[b""] * 100_000),
    ],
    ids=["raw", "list", "strings", "name", "many"],
)
def test_takes_a_bounded_number_of_steps(message):
    """Whatever the size of the message."""
    counted = CountedBytes(message.SerializeToString())
    (V1 if isinstance(message, v1.InferRequest) else OIP).scanner.outline(counted)
    assert counted.reads < 1000


@pytest.mark.parametrize("nbytes", [2000, 3000])
def test_large_outlines_are_left_to_the_decoding(nbytes):
    """Parsing them would cost as much."""
    outline = V1.scanner.outline(v1.InferRequest(model="m" * nbytes).SerializeToString())
    assert (outline is None) == (nbytes == 3000)

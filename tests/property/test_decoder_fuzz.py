"""Any bytes are decoded to a request, or rejected with an error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd.api.codec import parse
from inferd.api.oip.codec import OpenInferenceCodec
from inferd.api.v1.codec import InferenceCodec
from inferd.dtypes import ALL, BY_NAME
from inferd.errors import InvalidInputError
from inferd.runtime.signature import ModelSignature, TensorSpec


def _signature(*specs):
    return ModelSignature(
        inputs=tuple(TensorSpec(name=n, datatype=BY_NAME[t], shape=s, batch_axis=b) for n, t, s, b in specs),
        outputs=(TensorSpec(name="y", datatype=BY_NAME["FP32"], shape=("batch",), batch_axis=0),),
        batchable=True,
    )


SIGNATURES = [
    _signature(("x", "FP32", ("batch", 4), 0)),
    _signature(("x", "INT8", ("batch", "length"), 0), ("s", "FP32", (), None)),
    _signature(("x", "BYTES", ("batch",), 0)),
    _signature(("x", "BOOL", (2, "batch"), 1), ("s", "BF16", (None, None), None)),
]

names = st.sampled_from(["x", "s", "y", "", "ü"])
dimensions = st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 5)
shapes = st.lists(dimensions, max_size=4)
raws = st.binary(max_size=64) | st.sampled_from([b"\0" * n for n in (4, 8, 16, 32)])
floats = st.floats(width=32)
datatype_names = st.sampled_from([t.name for t in ALL]) | st.text(max_size=4)


@st.composite
def v1_requests(draw):
    """Requests of inferd.v1 with every field drawn independently."""
    tensors = st.builds(
        v1.Tensor,
        name=names,
        datatype=st.integers(0, 20),
        shape=shapes,
        raw=raws | st.just(b""),
        bools=st.lists(st.booleans(), max_size=4),
        ints=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
        uints=st.lists(st.integers(0, 2**64 - 1), max_size=4),
        floats=st.lists(st.floats(), max_size=4),
        strings=st.lists(st.text(max_size=4), max_size=4),
        bytes_values=st.lists(st.binary(max_size=4), max_size=4),
    )
    sparse = st.builds(v1.Tensor, name=names, shape=shapes, floats=st.lists(st.floats(), max_size=8)) | st.builds(
        v1.Tensor, name=names, shape=shapes, raw=raws
    )
    request = v1.InferRequest(
        inputs=draw(st.lists(tensors | sparse, max_size=3)),
        outputs=draw(st.lists(names, max_size=2)),
        priority=draw(st.integers(0, 2**32 - 1)),
    )
    if draw(st.booleans()):
        request.timeout.seconds = draw(st.integers(-(2**40), 2**40))
        request.timeout.nanos = draw(st.integers(-(2**31), 2**31 - 1))
    return request


@st.composite
def oip_requests(draw):
    """Requests of the Open Inference Protocol with every field drawn independently."""
    contents = st.builds(
        oip.InferTensorContents,
        bool_contents=st.lists(st.booleans(), max_size=3),
        int_contents=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
        int64_contents=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
        uint_contents=st.lists(st.integers(0, 2**32 - 1), max_size=3),
        fp32_contents=st.lists(floats, max_size=4),
        bytes_contents=st.lists(st.binary(max_size=4), max_size=3),
    )
    parameters = st.dictionaries(
        st.sampled_from(["priority", "timeout", "sequence_id", "triton_x", "shared_memory_region", "mine"]),
        st.builds(oip.InferParameter, int64_param=st.integers(-(2**63), 2**63 - 1))
        | st.builds(oip.InferParameter, string_param=st.text(max_size=3))
        | st.just(oip.InferParameter()),
        max_size=2,
    )
    inputs = st.builds(
        oip.ModelInferRequest.InferInputTensor, name=names, datatype=datatype_names, shape=shapes, contents=contents
    ) | st.builds(oip.ModelInferRequest.InferInputTensor, name=names, datatype=datatype_names, shape=shapes)
    return oip.ModelInferRequest(
        inputs=draw(st.lists(inputs, max_size=3)),
        raw_input_contents=draw(st.lists(raws, max_size=3)),
        parameters=draw(parameters),
        outputs=draw(st.lists(st.builds(oip.ModelInferRequest.InferRequestedOutputTensor, name=names), max_size=2)),
    )


def _decode(codec, message, signature):
    """Decode as far as the queue would; returns None for a request that was rejected with an error."""
    try:
        codec.scanner.scan(message)
        decoded = codec.decode(parse(codec.request_type, message), signature)
        checked = signature.check(decoded.inputs)
        signature.select_outputs(decoded.outputs)
    except InvalidInputError as error:
        if not error.message:
            raise
        return None
    return decoded, checked


@pytest.mark.parametrize("codec", [InferenceCodec(), OpenInferenceCodec()], ids=["v1", "oip"])
@given(message=st.binary(max_size=200), signature=st.sampled_from(SIGNATURES))
def test_any_bytes_are_request_or_error(codec, message, signature):
    """Random bytes raise nothing but InvalidInputError."""
    _decode(codec, message, signature)


@settings(max_examples=400)
@given(request=v1_requests(), signature=st.sampled_from(SIGNATURES))
def test_any_v1_message_is_request_or_error(request, signature):
    """Accepted arrays have the dtypes and ranks that the signature declares."""
    _check_accepted(_decode(InferenceCodec(), request.SerializeToString(), signature), signature)


@settings(max_examples=400)
@given(request=oip_requests(), signature=st.sampled_from(SIGNATURES))
def test_any_oip_message_is_request_or_error(request, signature):
    """Accepted arrays have the dtypes and ranks that the signature declares."""
    _check_accepted(_decode(OpenInferenceCodec(), request.SerializeToString(), signature), signature)


def _check_accepted(accepted, signature):
    if accepted is None:
        return
    decoded, checked = accepted
    assert checked.rows >= 1
    for spec in signature.inputs:
        array = decoded.inputs[spec.name]
        assert array.dtype == spec.datatype.numpy
        assert array.ndim == len(spec.shape)


@given(values=st.lists(floats, min_size=4, max_size=4), rows=st.integers(1, 3), data=st.data())
def test_truncated_request_is_never_another_request(values, rows, data):
    """It is rejected, or misses an input that is then named."""
    whole = v1.InferRequest(
        inputs=[v1.Tensor(name="x", shape=[rows, 4], raw=np.array(values * rows, np.float32).tobytes())]
    ).SerializeToString()
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert _decode(InferenceCodec(), whole[:cut], SIGNATURES[0]) is None

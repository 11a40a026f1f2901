"""Responses joined from bytes equal those that protobuf builds."""

import math
from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inferd import dtypes
from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd.api import tensors
from inferd.api.codec import RAW, Response, ResponseForm
from inferd.api.oip.codec import OpenInferenceCodec
from inferd.api.v1.codec import InferenceCodec
from inferd.batching.request import BatchTiming, InferenceResult

#: 0-d, empty, small, and those whose lengths are encoded in two and three bytes.
shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple) | st.sampled_from([(200,), (2, 9000)])
texts = st.sampled_from(["", "y", "digits"]) | st.text(max_size=200)


@st.composite
def arrays(draw):
    """An output of any type, with any bits and any layout."""
    datatype, shape = draw(st.sampled_from(dtypes.ALL)), draw(shapes)
    size = math.prod(shape)
    if datatype is dtypes.BYTES:
        pool = draw(st.lists(st.binary(max_size=5) | st.text(max_size=5).map(str.encode), min_size=1, max_size=5))
        flat = tensors.object_array([pool[number % len(pool)] for number in range(size)])
    else:
        bits = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).bytes(size * datatype.itemsize_bytes)
        flat = np.frombuffer(bits, datatype.numpy)
        if datatype.name == "BOOL":
            flat = flat.view(np.uint8) % 2 == 1
    array = flat.reshape(shape)
    return array.T if draw(st.booleans()) else array


@st.composite
def answers(draw):
    """An answer with anything that a model, its settings, a request and the clock may contribute."""
    timing = BatchTiming(
        started_at=0.0,
        stack_s=0.0,
        run_s=draw(st.sampled_from([0.0, 0.00025, 5000.0])),
        rows=draw(st.integers(0, 2**32 - 1)),
    )
    outputs = draw(st.dictionaries(texts, arrays(), max_size=3))
    result = InferenceResult(outputs, timing, queue_s=draw(st.floats(0.0, 1e6)))
    model = SimpleNamespace(name=draw(texts), version=draw(texts))
    return Response(model, draw(texts), ResponseForm(as_lists=True) if draw(st.booleans()) else RAW, result)


def _v1(answer):
    result = answer.result
    response = v1.InferResponse(model=answer.model.name, version=answer.model.version, request_id=answer.request_id)
    for name, array in result.outputs.items():
        tensor = response.outputs.add(name=name, datatype=dtypes.BY_NUMPY[array.dtype].proto, shape=array.shape)
        if answer.form.as_lists:
            field, parts = tensors.to_lists(array)
            for part in parts:
                getattr(tensor, field).extend(part)
        else:
            tensor.raw = bytes(tensors.to_bytes(array))
    response.timing.SetInParent()
    response.timing.queue_us = min(int(result.queue_s * 1e6), 2**32 - 1)
    response.timing.run_us = min(int(result.timing.run_s * 1e6), 2**32 - 1)
    response.timing.batch_rows = result.timing.rows
    return response


def _oip(answer):
    response = oip.ModelInferResponse(
        model_name=answer.model.name, model_version=answer.model.version, id=answer.request_id
    )
    for name, array in answer.result.outputs.items():
        response.outputs.add(name=name, datatype=dtypes.BY_NUMPY[array.dtype].name, shape=array.shape)
        response.raw_output_contents.append(bytes(tensors.to_bytes(array)))
    return response


def _same(encoded, expected):
    """Return whether both are one message: compared as serialized, because numbers may be NaN."""
    return type(expected).FromString(encoded).SerializeToString() == expected.SerializeToString()


@given(answer=answers())
def test_responses_equal_protobuf_messages(answer):
    """In both protocols, with raw bytes and with typed lists, down to every field."""
    assert _same(InferenceCodec().encode(answer), _v1(answer))
    assert _same(OpenInferenceCodec().encode(answer), _oip(answer))


@given(dtype=st.sampled_from(dtypes.ALL[:-2]), others=st.lists(st.sampled_from(dtypes.ALL[:12]), max_size=3))
def test_cached_output_heads_are_not_mixed_up(dtype, others):
    """Outputs of the same name, shape and length, but of different types, one after the other."""
    timing = BatchTiming(started_at=0.0, stack_s=0.0, run_s=0.0, rows=1)
    for datatype in (dtype, *others):
        for shape in ((2, 3), (3, 2), (6,)):
            result = InferenceResult({"y": np.zeros(shape, datatype.numpy)}, timing, queue_s=0.0)
            answer = Response(SimpleNamespace(name="m", version="1"), "", RAW, result)
            assert _same(InferenceCodec().encode(answer), _v1(answer))
            assert _same(OpenInferenceCodec().encode(answer), _oip(answer))

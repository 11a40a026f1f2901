"""Encoding of requests and packing into messages, compared with protobuf."""

from itertools import chain, pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inferd import dtypes
from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.client.messages import RequestWriter, input_fields
from inferd.client.stream import MESSAGE_BYTES, MessagePacker, Outbox

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
_NUMERIC = [dtype for dtype in dtypes.ALL if dtype.name not in {"BYTES", "BF16"}]
_ARRAYS = st.sampled_from(_NUMERIC).flatmap(
    lambda dtype: hnp.arrays(dtype.numpy, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=20))
)


def _packed(*requests: bytes) -> MessagePacker:
    pack = MessagePacker()
    for request in requests:
        pack.add(request)
    return pack


def _sizes(message: bytes) -> list[int]:
    return [request.ByteSize() for request in pb.StreamInferRequest.FromString(message).requests]


@given(
    model=_TEXT,
    version=_TEXT,
    outputs=st.lists(_TEXT, max_size=3),
    priority=st.integers(0, 2**32 - 1),
    timeout_ms=st.none() | st.integers(1, 10**9),
    elements=st.lists(st.tuples(_TEXT, st.dictionaries(_TEXT, _ARRAYS, max_size=3)), min_size=1, max_size=4),
)
def test_packed_requests_equal_protobuf(model, version, outputs, priority, timeout_ms, elements):
    """Packed requests parse to the requests that protobuf builds."""
    expected = pb.StreamInferRequest()
    for request_id, inputs in elements:
        request = expected.requests.add(
            model=model, version=version, request_id=request_id, outputs=outputs, priority=priority
        )
        for name, array in inputs.items():
            number = dtypes.BY_NUMPY[array.dtype].proto
            request.inputs.add(name=name, datatype=number, shape=array.shape, raw=array.tobytes())
        if timeout_ms is not None:
            request.timeout.FromMilliseconds(timeout_ms)
    writer = RequestWriter(model, version, tuple(outputs), priority, None if timeout_ms is None else timeout_ms / 1000)
    pack = _packed(*(writer.write(request_id, input_fields(inputs)) for request_id, inputs in elements))
    assert pb.StreamInferRequest.FromString(pack.take()) == expected
    assert not pack


def test_cached_heads_are_not_mixed_up():
    """The cached head of an input depends on name, type, shape and size."""
    writer = RequestWriter("m", "", (), 0, None)
    for array in (np.int64([1]), np.float64([1]), np.int64([[1]]), np.array([b"abcd"], object), np.int64([2])):
        (tensor,) = pb.InferRequest.FromString(writer.write("", input_fields({"x": array}))).inputs
        framed = b"\4\0\0\0abcd" if array.dtype == object else array.tobytes()
        assert (list(tensor.shape), tensor.raw) == (list(array.shape), framed)


@given(st.lists(st.integers(10, 2 * MESSAGE_BYTES), max_size=8))
def test_size_of_messages(sizes):
    """Requests are packed in order up to a mebibyte, and a larger one is alone."""
    requests = [pb.InferRequest(model="m" * size).SerializeToString() for size in sizes]
    pack = _packed(*requests)
    taken: list[list[int]] = []
    while pack:
        taken.append(_sizes(pack.take()))
        assert len(taken[-1]) == 1 or sum(taken[-1]) <= MESSAGE_BYTES
    assert list(chain.from_iterable(taken)) == [len(request) for request in requests]
    assert not pack.full
    for message, following in pairwise(taken):
        assert sum(message) + following[0] > MESSAGE_BYTES


def test_message_has_all_collected_requests():
    """All that were there when gRPC requested a message; the rest is sent at the end."""
    outbox = Outbox()
    messages = outbox.messages()
    for _ in range(3):
        outbox.put(pb.InferRequest(model="m").SerializeToString())
    assert len(_sizes(next(messages))) == 3
    outbox.put(pb.InferRequest(model="m").SerializeToString())
    outbox.end()
    assert [len(_sizes(message)) for message in messages] == [1]


def test_collects_at_most_one_message():
    """Then the producer waits, but not after the end."""
    outbox = Outbox()
    assert outbox.wait_for_room()
    outbox.put(b"\0" * MESSAGE_BYTES)
    outbox.end()
    assert not outbox.wait_for_room()

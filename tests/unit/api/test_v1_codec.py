"""Requests of inferd.v1: explicit values and defaults."""

import pytest
from google.protobuf.duration_pb2 import Duration

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.api.v1.codec import InferenceCodec
from inferd.errors import InvalidInputError
from tests.unit.api.fakes import SIGNATURE


def _decode(**fields):
    tensor = pb.Tensor(name="x", datatype=pb.DATA_TYPE_UNSPECIFIED, floats=[1, 2])
    return InferenceCodec().decode(pb.InferRequest(model="fake", inputs=[tensor], **fields), SIGNATURE)


@pytest.mark.parametrize("timeout", [None, Duration(), Duration(seconds=0, nanos=0)])
def test_null_values_are_defaults(timeout):
    """A timeout of 0, priority 0 and an empty list of outputs, as in the Open Inference Protocol."""
    decoded = _decode(timeout=timeout, priority=0, outputs=[])
    assert (decoded.timeout_s, decoded.priority, decoded.outputs) == (None, 0, ())


def test_decodes_timeout():
    """To the nanosecond."""
    assert _decode(timeout=Duration(seconds=1, nanos=500_000_000)).timeout_s == 1.5


def test_counts_elements_of_a_long_list_before_they_are_converted():
    """Which takes long, and would find numbers beyond FP32 here."""
    tensor = pb.Tensor(name="x", shape=[1, 2], floats=[1e300] * 4_001)
    with pytest.raises(InvalidInputError, match=r"expected 2 elements for shape \[1, 2\], got 4001"):
        InferenceCodec().decode(pb.InferRequest(model="fake", inputs=[tensor]), SIGNATURE)

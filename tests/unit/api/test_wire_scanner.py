"""The scan of a message before it is parsed: limits, templates, and number of steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd import wire
from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd.api import wire_scanner
from inferd.api.oip.codec import OpenInferenceCodec
from inferd.api.v1.codec import InferenceCodec
from inferd.api.wire_scanner import MessageLimits
from inferd.errors import InvalidInputError
from tests.unit.api.fakes import CountedBytes

LIMITS = MessageLimits(requests=4, elements=1000)
V1, OIP = InferenceCodec(LIMITS), OpenInferenceCodec(LIMITS)
MEGABYTES = 6_000_000


def _tensor(content: bytes) -> bytes:
    """Encode an input of `inferd.v1` with ``content``."""
    return wire.field(wire.tag(v1.InferRequest, "inputs"), content)


def _contents(content: bytes) -> bytes:
    """Encode an input of the Open Inference Protocol with ``content`` as its typed lists."""
    tensor = wire.field(wire.tag(oip.ModelInferRequest.InferInputTensor, "contents"), content)
    return wire.field(wire.tag(oip.ModelInferRequest, "inputs"), tensor)


def _filled(unit: bytes, nbytes: int = MEGABYTES) -> bytes:
    return unit * (nbytes // len(unit))


def _list(name: str, content: bytes) -> bytes:
    return wire.field(wire.tag(v1.Tensor, name), content)


HOSTILE = {
    "inputs": (V1, _filled(b"\x22\x00"), "inputs: expected at most 1024, got more"),
    "outputs": (V1, _filled(b"\x2a\x00"), "outputs: expected at most 1024, got more"),
    "merged timeouts": (V1, _filled(b"\x3a\x00"), "expected at most 100000 fields"),
    "unknown fields": (V1, _filled(b"\x78\x00"), "expected at most 100000 fields"),
    "unknown groups": (V1, _filled(b"\x7b\x7c"), "expected at most 100000 fields"),
    "a group of fields": (V1, b"\x7b" + _filled(b"\x78\x00") + b"\x7c", "expected at most 100000 fields"),
    "a scalar again and again": (V1, _filled(b"\x30\x01"), "expected at most 100000 fields"),
    "a packed shape": (V1, _tensor(_list("shape", _filled(b"\x01"))), "shape: expected at most 64, got more"),
    "an unpacked shape": (V1, _tensor(_filled(b"\x18\x01")), "shape: expected at most 64, got more"),
    "packed integers": (V1, _tensor(_list("ints", _filled(b"\x01"))), "expected at most 1000 elements"),
    "unpacked integers": (V1, _tensor(_filled(b"\x30\x01")), "expected at most 1000 elements"),
    "packed doubles": (V1, _tensor(_list("floats", _filled(b"\0" * 8))), "expected at most 1000 elements"),
    "empty strings": (V1, _tensor(_filled(b"\x4a\x00")), "expected at most 1000 elements"),
    "empty byte strings": (V1, _tensor(_filled(b"\x52\x00")), "expected at most 1000 elements"),
    "a long name": (V1, wire.field(0x0A, bytes(MEGABYTES)), "model: expected at most 65536 bytes, got 6000000"),
    "parameters": (OIP, _filled(b"\x22\x00"), "parameters: expected at most 256, got more"),
    "a parameter of parts": (OIP, wire.field(0x22, _filled(b"\x12\x00")), "expected at most 100000 fields"),
    "raw contents": (OIP, _filled(b"\x3a\x00"), "raw_input_contents: expected at most 1024, got more"),
    "packed contents": (OIP, _contents(wire.field(0x1A, _filled(b"\x01"))), "expected at most 1000 elements"),
    "packed floats": (OIP, _contents(wire.field(0x32, _filled(b"\0" * 4))), "expected at most 1000 elements"),
    "byte string contents": (OIP, _contents(_filled(b"\x42\x00")), "expected at most 1000 elements"),
    "packed contents of nothing": (OIP, _contents(_filled(b"\x1a\x00")), "expected at most 100000 fields"),
    "merged contents": (OIP, wire.field(0x2A, _filled(b"\x2a\x00")), "expected at most 100000 fields"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_rejects_at_the_first_field_over_a_limit(kind):
    """The number of steps does not depend on the size of the message: at most tag, length and content of a field."""
    codec, message, text = HOSTILE[kind]
    message = CountedBytes(message)
    with pytest.raises(InvalidInputError, match=text):
        codec.scanner.scan(message)
    assert message.reads <= 3 * wire_scanner.MAX_FIELDS + 20


MALFORMED = {
    "a length beyond the end": b"\x0a\x05abc",
    "a tag without a content": b"\x0a",
    "an integer without an end": b"\x30" + b"\xff" * 11,
    "a reserved wire type": b"\x0e\x00",
    "the field number 0": b"\x00\x01",
    "a group without an end": b"\x7b\x78\x01",
    "an end without a group": b"\x7c",
    "another group's end": b"\x7b\x74",
    "groups without end": b"\x7b" * 1000,
    "a length beyond its message": b"\x22\x02\x0a\x05abcde",
}


@pytest.mark.parametrize("codec", [V1, OIP], ids=["v1", "oip"])
@pytest.mark.parametrize("kind", MALFORMED)
def test_rejects_malformed_message(codec, kind):
    """With the same text as the parser's error."""
    with pytest.raises(InvalidInputError, match="the message is not a valid"):
        codec.scanner.scan(MALFORMED[kind])


def test_accepts_message_at_limits():
    """Each limit is inclusive."""
    tensor = v1.Tensor(name="x", shape=[1] * wire_scanner.MAX_DIMENSIONS, ints=[300] * LIMITS.elements)
    V1.scanner.scan(v1.InferRequest(inputs=[tensor]).SerializeToString())
    V1.scanner.scan(v1.InferRequest(inputs=[v1.Tensor()] * wire_scanner.MAX_TENSORS).SerializeToString())
    request = oip.ModelInferRequest()
    for number in range(wire_scanner.MAX_PARAMETERS):
        request.parameters[str(number)].int64_param = 1
    OIP.scanner.scan(request.SerializeToString())


@given(
    ints=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=40),
    floats=st.lists(st.floats(), max_size=40),
    strings=st.lists(st.text(max_size=3), max_size=40),
    most=st.integers(1, 100),
)
def test_counts_elements_exactly(ints, floats, strings, most):
    """Packed lists of any length, over all lists of a request."""
    tensors = [v1.Tensor(ints=ints), v1.Tensor(floats=floats, strings=strings)]
    message = v1.InferRequest(inputs=tensors).SerializeToString()
    codec = InferenceCodec(MessageLimits(elements=most))
    if len(ints) + len(floats) + len(strings) > most:
        with pytest.raises(InvalidInputError, match="elements in typed lists"):
            codec.scanner.scan(message)
    else:
        codec.scanner.scan(message)


@pytest.mark.parametrize("extra", [b"", b"\x78\x01", b"\x7b\x78\x01\x7c", b"\x22\x04\x3a\x02\x01\x02"])
def test_only_raw_requests_have_templates(extra):
    """Unknown fields and typed lists differ between requests."""
    frame = V1.scanner.scan(
        v1.InferRequest(model="m", inputs=[v1.Tensor(name="x", raw=b"1234")]).SerializeToString() + extra
    )
    assert (frame is not None) == (extra == b"")


@pytest.mark.parametrize(
    ("codec", "message", "field"),
    [
        (V1, _filled(b"\x22\x00"), "inputs"),
        (V1, wire.field(0x0A, bytes(100_000)), "model"),
        (V1, b"\x22\x00" + _tensor(_filled(b"\x18\x01")), "inputs[1].shape"),
        (V1, b"\x22\x00\x22\x00" + _tensor(_list("ints", _filled(b"\x01"))), "inputs[2].ints"),
        (OIP, _contents(wire.field(0x1A, _filled(b"\x01"))), "inputs[0].contents.int64_contents"),
        (OIP, _filled(b"\x3a\x00"), "raw_input_contents"),
        (V1, _filled(b"\x78\x00"), ""),
    ],
)
def test_names_field_over_limit(codec, message, field):
    """By its path; a limit of the whole message has none."""
    with pytest.raises(InvalidInputError) as refused:
        codec.scanner.scan(message)
    assert refused.value.field == field

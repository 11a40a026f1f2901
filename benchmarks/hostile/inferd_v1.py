"""Hostile requests of ``inferd.v1``, for Infer and, as the requests of one message, for StreamInfer."""

from collections.abc import Iterator
from itertools import chain

from google.protobuf.duration_pb2 import Duration

from benchmarks.hostile.kind import Build, Kind, filled, label, length_field, long_varint, numbered, packed, wrapped
from benchmarks.hostile.malformed_fields import unknown_inside
from benchmarks.hostile.raw_strings import NOT_UTF8, raw_strings
from inferd import wire
from inferd._generated.inferd.v1 import inference_pb2 as pb

INFER = "/inferd.v1.InferenceService/Infer"
STREAM_INFER = "/inferd.v1.InferenceService/StreamInfer"

_REQUEST = {name: wire.tag(pb.InferRequest, name) for name in pb.InferRequest.DESCRIPTOR.fields_by_name}
_TENSOR = {name: wire.tag(pb.Tensor, name) for name in pb.Tensor.DESCRIPTOR.fields_by_name}
_REQUESTS = wire.tag(pb.StreamInferRequest, "requests")
_SECONDS = wire.tag(Duration, "seconds")
_MINUS_ONE = long_varint(2**64 - 1)
_LARGEST = b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f"


def kinds() -> Iterator[Kind]:
    """Yield every kind for both methods, and the kinds of messages that only a stream has."""
    for name, build in requests().items():
        yield Kind(name=f"Infer: {name}", method=INFER, build=build)
        streamed = wrapped(_REQUESTS, build)
        yield Kind(name=f"StreamInfer: {name}", method=STREAM_INFER, build=streamed, streams=True)
    for name, build in messages().items():
        yield Kind(name=f"StreamInfer: {name}", method=STREAM_INFER, build=build, streams=True)


def messages() -> dict[str, Build]:
    """Return kinds of several requests in one message."""
    return {
        "empty requests": filled(b"", _request()),
        "tiny requests": filled(b"", _request(_field("model", b"numbers"))),
        "requests of different ids": numbered(b"", lambda number: _request(_field("request_id", label(number)))),
        "requests of different models": numbered(b"", lambda number: _request(_field("model", label(number)))),
        "requests of different frames": numbered(b"", lambda number: _small(label(number))),
        "requests that are answered": filled(b"", _small(b"x")),
        "requests of empty tensors": filled(b"", _request(_input() * 100)),
        "empty requests behind a good one": filled(_small(b"x"), _request()),
    }


def requests() -> dict[str, Build]:
    """Return kinds of one request."""
    return dict(chain(_tensors(), _shapes(), _lists(), _texts(), _repeated(), _unknown()))


def _tensors() -> Iterator[tuple[str, Build]]:
    yield "empty tensors", filled(_model("numbers"), _input())
    yield "empty tensors for an unknown model", filled(_model("nobody"), _input())
    yield "tensors of one name", filled(_model("numbers"), _input(_of("name", b"x")))
    yield "tensors of different names", numbered(_model("numbers"), lambda number: _input(_of("name", label(number))))
    whole = _of("name", b"x") + wire.integer(_TENSOR["datatype"], 9) + _of("shape", b"\x01\x01") + _of("raw", bytes(8))
    yield "whole tensors", filled(_model("numbers"), _input(whole))
    yield "empty outputs", filled(_model("numbers"), _field("outputs", b""))
    yield "outputs of one name", filled(_model("numbers"), _field("outputs", b"total"))
    yield "outputs of different names", numbered(_model("numbers"), lambda number: _field("outputs", label(number)))


def _shapes() -> Iterator[tuple[str, Build]]:
    named, shape = _of("name", b"x"), _TENSOR["shape"]
    for name, element in {"ones": b"\x01", "zeros": b"\x00", "negative": _MINUS_ONE, "largest": _LARGEST}.items():
        yield f"shape of {name}", _tensor("numbers", packed(shape, element, named))
        single = wire.varint(shape & ~7) + element
        yield f"shape of {name}, one by one", _tensor("numbers", filled(named, single))
    yield "shapes of no dimension", _tensor("numbers", filled(named, _of("shape", b"")))


def _lists() -> Iterator[tuple[str, Build]]:
    """Yield typed lists for inputs of that type, so that only their size can be rejected."""
    for model, name, element in (
        ("numbers", "ints", b"\x01"), ("numbers", "ints", _MINUS_ONE), ("numbers", "uints", b"\x01"),
        ("numbers", "floats", bytes(8)), ("flags", "bools", b"\x01"), ("flags", "bools", _MINUS_ONE),
        ("singles", "ints", b"\x01"), ("singles", "floats", bytes(8)), ("halves", "floats", bytes(8)),
        ("halves", "ints", b"\x01"), ("octets", "ints", b"\x01"), ("octets", "uints", _LARGEST),
    ):  # fmt: skip
        said = f"{name} of {len(element)} bytes for {model}"
        yield said, _tensor(model, packed(_TENSOR[name], element, _of("name", b"x")))
        alone = wire.varint(_TENSOR[name] & ~7 | (wire.FIXED64 if name == "floats" else wire.VARINT)) + element
        yield f"{said}, one by one", _tensor(model, filled(_of("name", b"x"), alone))
    for name in ("strings", "bytes_values"):
        yield f"empty {name}", _tensor("texts", filled(_of("name", b"x"), _of(name, b"")))
        yield f"short {name}", _tensor("texts", filled(_of("name", b"x"), _of(name, b"ab")))
        yield f"one of {name}", _tensor("texts", wrapped(_TENSOR[name], filled(b"", b"a"), _of("name", b"x")))
    yield "strings that are not UTF-8", _tensor("texts", filled(_of("name", b"x"), _of("strings", b"\xff")))
    for name, build in raw_strings().items():
        yield f"raw text: {name}", _tensor("texts", wrapped(_TENSOR["raw"], build, _of("name", b"x")))
    for model in ("numbers", "singles", "halves", "flags", "octets"):
        yield (
            f"raw zeros for {model}",
            _tensor(model, wrapped(_TENSOR["raw"], filled(b"", bytes(8)), _of("name", b"x"))),
        )
    every = b"".join((
        _of("raw", bytes(8)), _of("bools", b"\x01"), _of("ints", b"\x01"), _of("uints", b"\x01"),
        _of("floats", bytes(8)), _of("strings", b""), _of("bytes_values", b""),
    ))  # fmt: skip
    yield "every list at once", _tensor("numbers", filled(_of("name", b"x"), every))
    yield "raw and ints", _tensor("numbers", packed(_TENSOR["ints"], b"\x01", _of("name", b"x") + _of("raw", bytes(8))))


def _texts() -> Iterator[tuple[str, Build]]:
    for name in ("model", "version", "request_id", "outputs"):
        for said, content in {
            "long": b"a",
            "not UTF-8 long": NOT_UTF8,
            "escaped long": b"\x1b",
            "two-byte long": "é".encode(),
        }.items():
            head = b"" if name == "model" else _model("numbers")
            yield f"{said} {name}", wrapped(_REQUEST[name], filled(b"", content), head)
    for said, content in {"long": b"a", "not UTF-8 long": NOT_UTF8}.items():
        yield f"{said} name of a tensor", _tensor("numbers", wrapped(_TENSOR["name"], filled(b"", content)))


def _repeated() -> Iterator[tuple[str, Build]]:
    for name in ("model", "version", "request_id"):
        yield f"{name} again and again", filled(b"", _field(name, b"numbers"))
        yield f"empty {name} again and again", filled(b"", _field(name, b""))
    yield "priority again and again", filled(_model("numbers"), wire.integer(_REQUEST["priority"], 1))
    yield "timeout again and again", filled(_model("numbers"), _field("timeout", b""))
    seconds = wire.integer(_SECONDS, 1)
    yield "timeouts of a second", filled(_model("numbers"), _field("timeout", seconds))
    yield "timeout with seconds again and again", wrapped(_REQUEST["timeout"], filled(b"", seconds), _model("numbers"))
    yield "datatype again and again", _tensor("numbers", filled(b"", wire.integer(_TENSOR["datatype"], 9)))
    yield "raw again and again", _tensor("numbers", filled(_of("name", b"x"), _of("raw", bytes(8))))
    yield "name again and again", _tensor("numbers", filled(b"", _of("name", b"x")))
    yield "packed lists of one element", _tensor("numbers", filled(_of("name", b"x"), _of("ints", b"\x01")))
    yield "packed lists of no element", _tensor("numbers", filled(_of("name", b"x"), _of("ints", b"")))


def _unknown() -> Iterator[tuple[str, Build]]:
    for name, build in unknown_inside().items():
        yield f"{name} in a tensor", _tensor("numbers", build)
        yield f"{name} in a timeout", wrapped(_REQUEST["timeout"], build, _model("numbers"))


def _small(name: bytes) -> bytes:
    """Return a request of one row for the model of integers, with the id ``name``."""
    tensor = _of("name", name) + _of("shape", b"\x01\x01") + _of("raw", bytes(8))
    return _request(_field("model", b"numbers") + _input(tensor))


def _request(content: bytes = b"") -> bytes:
    return length_field(_REQUESTS, content)


def _tensor(model: str, build: Build) -> Build:
    return wrapped(_REQUEST["inputs"], build, _model(model))


def _model(name: str) -> bytes:
    return _field("model", name.encode())


def _input(content: bytes = b"") -> bytes:
    return _field("inputs", content)


def _field(name: str, content: bytes) -> bytes:
    return length_field(_REQUEST[name], content)


def _of(name: str, content: bytes) -> bytes:
    return length_field(_TENSOR[name], content)

"""Hostile requests of the Open Inference Protocol, for ModelInfer and as the one message of ModelStreamInfer."""

from collections.abc import Iterator
from itertools import chain

from benchmarks.hostile.kind import Build, Kind, filled, label, length_field, long_varint, numbered, packed, wrapped
from benchmarks.hostile.malformed_fields import unknown_inside
from benchmarks.hostile.raw_strings import NOT_UTF8, raw_strings
from inferd import wire
from inferd._generated.inference import grpc_service_pb2 as pb

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
MODEL_STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"

_Tensor = pb.ModelInferRequest.InferInputTensor
_REQUEST = {name: wire.tag(pb.ModelInferRequest, name) for name in pb.ModelInferRequest.DESCRIPTOR.fields_by_name}
_TENSOR = {name: wire.tag(_Tensor, name) for name in _Tensor.DESCRIPTOR.fields_by_name}
_CONTENTS = {name: wire.tag(pb.InferTensorContents, name) for name in pb.InferTensorContents.DESCRIPTOR.fields_by_name}
_PARAMETER = {name: wire.tag(pb.InferParameter, name) for name in pb.InferParameter.DESCRIPTOR.fields_by_name}
#: Fields of an entry of a map, and of a requested output.
_KEY, _VALUE = 1 << 3 | wire.LENGTH, 2 << 3 | wire.LENGTH
_OUTPUT_NAME = _KEY
_OUTPUT_PARAMETERS = wire.tag(pb.ModelInferRequest.InferRequestedOutputTensor, "parameters")
_MINUS_ONE = long_varint(2**64 - 1)
_LARGEST = b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f"
_TRUE = wire.integer(_PARAMETER["bool_param"], 1)


def kinds() -> Iterator[Kind]:
    """Yield every kind for both methods."""
    for name, build in requests().items():
        yield Kind(name=f"ModelInfer: {name}", method=MODEL_INFER, build=build)
        yield Kind(name=f"ModelStreamInfer: {name}", method=MODEL_STREAM_INFER, build=build, streams=True)


def requests() -> dict[str, Build]:
    """Return kinds of one request."""
    return dict(chain(_tensors(), _parameters(), _shapes(), _contents(), _raw(), _texts(), _repeated(), _unknown()))


def _tensors() -> Iterator[tuple[str, Build]]:
    model = _model("numbers")
    yield "empty tensors", filled(model, _input())
    yield "empty tensors for an unknown model", filled(_model("nobody"), _input())
    yield "tensors of one name", filled(model, _input(_HEAD))
    yield "tensors of different names", numbered(model, lambda number: _input(_of("name", label(number))))
    yield "empty outputs", filled(model, _output(b""))
    yield "outputs of one name", filled(model, _output(length_field(_OUTPUT_NAME, b"total")))
    yield (
        "outputs of different names",
        numbered(model, lambda number: _output(length_field(_OUTPUT_NAME, label(number)))),
    )


def _parameters() -> Iterator[tuple[str, Build]]:
    model = _model("numbers")
    request, tensor, output = _REQUEST["parameters"], _TENSOR["parameters"], _OUTPUT_PARAMETERS
    named = length_field(_OUTPUT_NAME, b"total")
    yield "empty parameters", filled(model, length_field(request, b""))
    yield "one parameter again and again", filled(model, _entry(request, b"k", _TRUE))
    yield "different parameters", numbered(model, lambda number: _entry(request, label(number), _TRUE))
    yield (
        "priority again and again",
        filled(model, _entry(request, b"priority", wire.integer(_PARAMETER["uint64_param"], 1))),
    )
    yield (
        "timeout again and again",
        filled(model, _entry(request, b"timeout", wire.integer(_PARAMETER["int64_param"], 1))),
    )
    again = wire.integer(_PARAMETER["int64_param"], 1)
    yield "a parameter of many values", wrapped(request, wrapped(_VALUE, filled(b"", again)), model)
    values = length_field(_VALUE, _TRUE)
    yield "a parameter of many entries' values", wrapped(request, filled(b"", values), model)
    yield (
        "different parameters of a tensor",
        _tensor("numbers", numbered(_HEAD, lambda number: _entry(tensor, label(number), _TRUE))),
    )
    yield "one parameter of a tensor again and again", _tensor("numbers", filled(_HEAD, _entry(tensor, b"k", _TRUE)))
    yield "empty parameters of a tensor", _tensor("numbers", filled(_HEAD, length_field(tensor, b"")))
    size = _entry(tensor, b"binary_data_size", again) + _entry(tensor, b"shared_memory_region", again)
    yield "reserved parameters of a tensor", _tensor("numbers", filled(_HEAD, size))
    outputs = numbered(named, lambda number: _entry(output, label(number), _TRUE))
    yield "different parameters of an output", wrapped(_REQUEST["outputs"], outputs, model)
    yield "empty parameters of an output", wrapped(_REQUEST["outputs"], filled(named, length_field(output, b"")), model)
    yield "long key of a parameter", wrapped(request, wrapped(_KEY, filled(b"", b"a")), model)
    yield (
        "long value of a parameter",
        wrapped(request, wrapped(_VALUE, wrapped(_PARAMETER["string_param"], filled(b"", b"a"))), model),
    )
    yield "long key that is not UTF-8", wrapped(request, wrapped(_KEY, filled(b"", NOT_UTF8)), model)


def _shapes() -> Iterator[tuple[str, Build]]:
    shape = _TENSOR["shape"]
    for name, element in {"ones": b"\x01", "zeros": b"\x00", "negative": _MINUS_ONE, "largest": _LARGEST}.items():
        yield f"shape of {name}", _tensor("numbers", packed(shape, element, _HEAD))
        yield f"shape of {name}, one by one", _tensor("numbers", filled(_HEAD, wire.varint(shape & ~7) + element))
    yield "shapes of no dimension", _tensor("numbers", filled(_HEAD, _of("shape", b"")))


def _contents() -> Iterator[tuple[str, Build]]:
    """Yield typed contents for inputs of that type, so that only their size can be rejected."""
    for model, datatype, name, element in (
        ("numbers", b"INT64", "int64_contents", b"\x01"), ("numbers", b"INT64", "int64_contents", _MINUS_ONE),
        ("octets", b"UINT8", "uint_contents", b"\x01"), ("octets", b"UINT8", "uint_contents", _LARGEST),
        ("numbers", b"INT64", "int_contents", b"\x01"), ("numbers", b"INT64", "uint64_contents", b"\x01"),
        ("flags", b"BOOL", "bool_contents", b"\x01"), ("flags", b"BOOL", "bool_contents", _MINUS_ONE),
        ("singles", b"FP32", "fp32_contents", bytes(4)), ("singles", b"FP32", "fp64_contents", bytes(8)),
        ("halves", b"FP16", "fp32_contents", bytes(4)),
    ):  # fmt: skip
        said = f"{name} of {len(element)} bytes for {model}"
        head = _head(datatype)
        yield said, _tensor(model, wrapped(_TENSOR["contents"], packed(_CONTENTS[name], element), head))
        field = pb.InferTensorContents.DESCRIPTOR.fields_by_name[name]
        alone = wire.varint(field.number << 3 | wire.element_wire_type(field)) + element
        yield f"{said}, one by one", _tensor(model, wrapped(_TENSOR["contents"], filled(b"", alone), head))
    texts = _head(b"BYTES")
    for said, element in {"empty": b"", "short": b"ab"}.items():
        field_bytes = length_field(_CONTENTS["bytes_contents"], element)
        yield f"{said} bytes_contents", _tensor("texts", wrapped(_TENSOR["contents"], filled(b"", field_bytes), texts))
    one = wrapped(_CONTENTS["bytes_contents"], filled(b"", b"a"))
    yield "one of bytes_contents", _tensor("texts", wrapped(_TENSOR["contents"], one, texts))
    yield from _merged_contents()


def _merged_contents() -> Iterator[tuple[str, Build]]:
    one = length_field(_CONTENTS["int64_contents"], b"\x01")
    yield "empty contents again and again", _tensor("numbers", filled(_HEAD, _of("contents", b"")))
    yield "contents of one element again and again", _tensor("numbers", filled(_HEAD, _of("contents", one)))
    numbers = ("bool", "int", "int64", "uint", "uint64")
    every = b"".join(length_field(_CONTENTS[f"{name}_contents"], b"\x01") for name in numbers)
    every += length_field(_CONTENTS["fp32_contents"], bytes(4)) + length_field(_CONTENTS["fp64_contents"], bytes(8))
    every += length_field(_CONTENTS["bytes_contents"], b"")
    yield "every list at once", _tensor("numbers", wrapped(_TENSOR["contents"], filled(b"", every), _HEAD))
    nothing = length_field(_CONTENTS["int64_contents"], b"")
    yield "packed lists of no element", _tensor("numbers", wrapped(_TENSOR["contents"], filled(b"", nothing), _HEAD))


def _raw() -> Iterator[tuple[str, Build]]:
    head = _model("numbers") + _input(_HEAD)
    raw = _REQUEST["raw_input_contents"]
    yield "empty raw contents", filled(head, length_field(raw, b""))
    yield "short raw contents", filled(head, length_field(raw, bytes(8)))
    yield "empty raw contents without tensors", filled(_model("numbers"), length_field(raw, b""))
    yield "tensors and raw contents", filled(_model("numbers"), _input(_HEAD) + length_field(raw, bytes(8)))
    yield (
        "raw and typed contents",
        packed(
            raw,
            bytes(8),
            _model("numbers") + _input(_HEAD + _of("contents", length_field(_CONTENTS["int64_contents"], b"\x01"))),
        ),
    )
    for model, datatype, size in (
        ("numbers", b"INT64", 8),
        ("singles", b"FP32", 4),
        ("halves", b"FP16", 2),
        ("flags", b"BOOL", 1),
    ):
        yield f"raw zeros for {model}", _RawZeros(model, datatype, size)
    for name, build in raw_strings().items():
        text = _head(b"BYTES")
        yield f"raw text: {name}", wrapped(raw, build, _model("texts") + _input(text + _of("shape", b"\x01\x01")))


def _texts() -> Iterator[tuple[str, Build]]:
    for name in ("model_name", "model_version", "id"):
        for said, content in {"long": b"a", "not UTF-8 long": NOT_UTF8}.items():
            head = b"" if name == "model_name" else _model("numbers")
            yield f"{said} {name}", wrapped(_REQUEST[name], filled(b"", content), head)
    for name in ("name", "datatype"):
        for said, content in {"long": b"a", "not UTF-8 long": NOT_UTF8}.items():
            yield f"{said} {name} of a tensor", _tensor("numbers", wrapped(_TENSOR[name], filled(b"", content)))
    yield (
        "long name of an output",
        wrapped(_REQUEST["outputs"], wrapped(_OUTPUT_NAME, filled(b"", b"a")), _model("numbers")),
    )


def _repeated() -> Iterator[tuple[str, Build]]:
    for name in ("model_name", "model_version", "id"):
        yield f"{name} again and again", filled(b"", length_field(_REQUEST[name], b"numbers"))
        yield f"empty {name} again and again", filled(b"", length_field(_REQUEST[name], b""))
    for name in ("name", "datatype"):
        yield f"{name} of a tensor again and again", _tensor("numbers", filled(b"", _of(name, b"x")))


def _unknown() -> Iterator[tuple[str, Build]]:
    for name, build in unknown_inside().items():
        yield f"{name} in a tensor", _tensor("numbers", build)
        yield f"{name} in contents", _tensor("numbers", wrapped(_TENSOR["contents"], build, _HEAD))
        yield f"{name} in an output", wrapped(_REQUEST["outputs"], build, _model("numbers"))
        yield f"{name} in a parameter", wrapped(_REQUEST["parameters"], build, _model("numbers"))


class _RawZeros:
    """Builds a request whose raw contents fit its shape, so that it is run."""

    def __init__(self, model: str, datatype: bytes, element_bytes: int) -> None:
        self._model = model
        self._datatype = datatype
        self._element_bytes = element_bytes

    def __call__(self, nbytes: int) -> bytes:
        length = nbytes // self._element_bytes
        tensor = _head(self._datatype) + _of("shape", b"\x01" + wire.varint(length))
        raw = length_field(_REQUEST["raw_input_contents"], bytes(length * self._element_bytes))
        return _model(self._model) + _input(tensor) + raw


def _tensor(model: str, build: Build) -> Build:
    return wrapped(_REQUEST["inputs"], build, _model(model))


def _model(name: str) -> bytes:
    return length_field(_REQUEST["model_name"], name.encode())


def _input(content: bytes = b"") -> bytes:
    return length_field(_REQUEST["inputs"], content)


def _output(content: bytes) -> bytes:
    return length_field(_REQUEST["outputs"], content)


def _of(name: str, content: bytes) -> bytes:
    return length_field(_TENSOR[name], content)


def _entry(tag: int, key: bytes, value: bytes) -> bytes:
    return length_field(tag, length_field(_KEY, key) + length_field(_VALUE, value))


def _head(datatype: bytes) -> bytes:
    return _of("name", b"x") + _of("datatype", datatype)


_HEAD = _head(b"INT64")

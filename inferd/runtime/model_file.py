"""What a model file says of itself, read without loading it: versions and who made it.

An ONNX file is a protobuf message. Only its top level is walked, and the graph, which is nearly all of the file, is
stepped over.
"""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from inferd.runtime.errors import ModelLoadError

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5

#: Field numbers of ONNX's ModelProto and OperatorSetIdProto.
_IR_VERSION, _PRODUCER_NAME, _PRODUCER_VERSION, _OPSET_IMPORT = 1, 2, 3, 8
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2

#: Names and versions are short; what is longer is stepped over.
_LONGEST_FIELD_BYTES = 4096

#: A field's number, and its value where it is short.
Field = tuple[int, int | bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelHeader:
    """``opsets`` is the version by domain, with "ai.onnx" for ONNX's own operators."""

    ir_version: int = 0
    producer_name: str = ""
    producer_version: str = ""
    opsets: Mapping[str, int] = field(default_factory=dict)


def read_header(path: Path) -> ModelHeader:
    """Read the header of the ONNX file at ``path``. Raises `ModelLoadError` if it is not one."""
    try:
        with path.open("rb") as file:
            return _header(_fields(file, path.stat().st_size))
    except OSError as error:
        msg = f"cannot read {path.name}: {error.strerror}"
        raise ModelLoadError(msg) from error
    except ValueError as error:
        msg = f"{path.name} is not an ONNX file: {error}"
        raise ModelLoadError(msg) from error


def _header(fields: Iterator[Field]) -> ModelHeader:
    header = ModelHeader()
    opsets: dict[str, int] = {}
    for number, value in fields:
        if number == _IR_VERSION and isinstance(value, int):
            header = replace(header, ir_version=value)
        elif number == _PRODUCER_NAME and isinstance(value, bytes):
            header = replace(header, producer_name=value.decode())
        elif number == _PRODUCER_VERSION and isinstance(value, bytes):
            header = replace(header, producer_version=value.decode())
        elif number == _OPSET_IMPORT and isinstance(value, bytes):
            domain, version = _opset(value)
            opsets[domain] = version
    return replace(header, opsets=opsets)


def _opset(message: bytes) -> tuple[str, int]:
    fields = dict(_fields(io.BytesIO(message), len(message)))
    domain, version = fields.get(_OPSET_DOMAIN, b""), fields.get(_OPSET_VERSION, 0)
    if not isinstance(domain, bytes) or not isinstance(version, int):
        msg = "an operator set has no version"
        raise ValueError(msg)  # noqa: TRY004  (the file is wrong, not a caller's type)
    return domain.decode() or "ai.onnx", version


def _fields(file: BinaryIO, size: int) -> Iterator[Field]:
    while file.tell() < size:
        number, wire_type = divmod(_varint(file), 8)
        if wire_type == _VARINT:
            yield number, _varint(file)
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(wire_type)
        if wire_type == _LENGTH_DELIMITED:
            length = _varint(file)
        if length is None or file.tell() + length > size:
            msg = f"it ends early or is damaged near byte {file.tell()}"
            raise ValueError(msg)
        if length <= _LONGEST_FIELD_BYTES:
            yield number, file.read(length)
        else:
            file.seek(length, io.SEEK_CUR)


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    msg = f"it ends early or is damaged near byte {file.tell()}"
    raise ValueError(msg)

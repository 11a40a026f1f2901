"""Inputs and outputs of a model, and validation of requests against them. Pure: knows no session."""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inferd.dtypes import BY_NUMPY, BY_ONNX, DataType
from inferd.errors import InvalidInputError, Place
from inferd.plain_text import clipped, listed
from inferd.runtime.errors import ModelLoadError

#: Dimensions shown of a shape; numpy has no more.
_MOST_DIMENSIONS = 64

#: Arrays by tensor name. BYTES tensors are ``object`` arrays of ``bytes``.
Array = NDArray[np.generic]
Tensors = Mapping[str, Array]

#: Logits of a language model, [rows,vocabulary_size].
Logits = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """One input or output of a model.

    ``shape`` has an ``int`` for a fixed dimension, a ``str`` for a named open one and ``None`` for an unnamed open one.
    ``batch_axis`` is the dimension that counts rows. An input with ``None`` is shared by all rows of a batch: only
    requests with equal values for it can be stacked. ``optional`` marks an input with a default value. ``labels`` are
    the names of the classes of an output.
    """

    name: str
    datatype: DataType
    shape: tuple[int | str | None, ...]
    batch_axis: int | None = None
    optional: bool = False
    labels: tuple[str, ...] = field(default=(), repr=False, compare=False)


def tensor_spec(
    kind: Literal["input", "output"], name: str, onnx_type: str, shape: Sequence[int | str | None]
) -> TensorSpec:
    """Convert a declaration of ONNX Runtime. Raises `ModelLoadError` for a type that the protocols cannot carry."""
    if not onnx_type.startswith("tensor("):
        advice = '; convert it with zipmap off (options={"zipmap": False})' if "map(" in onnx_type else ""
        msg = f'{kind} "{name}" is of type {onnx_type}, only tensors can be served{advice}'
        raise ModelLoadError(msg)
    datatype = BY_ONNX.get(onnx_type)
    if datatype is None:
        msg = f'{kind} "{name}" is of type {onnx_type}, an element type that cannot be sent over the wire'
        raise ModelLoadError(msg)
    return TensorSpec(name=name, datatype=datatype, shape=tuple(map(_dimension, shape)))


def _dimension(size: int | str | None) -> int | str | None:
    if isinstance(size, str):
        # Some exporters name every open dimension "?" or "-1", which does not make them equal.
        return size if any(map(str.isalpha, size)) else None
    # Some write -1 for an open dimension.
    return None if size is None or size < 0 else size


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedInputs:
    """Size and stack key of a valid request.

    ``rows`` is 1 for a model that cannot batch. ``nbytes`` is the memory of the inputs. Requests can be stacked exactly
    if their ``stack_key`` is equal.
    """

    rows: int
    nbytes: int
    stack_key: Hashable


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSignature:
    """Inputs and outputs of a model, in the model's order. ``batchable``: rows of several requests may be stacked.

    Without ``batchable`` no tensor has a batch axis; with it at least one required input has one. ``loose_dimensions``
    are names of open dimensions that may differ between the inputs of one request.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batchable: bool
    loose_dimensions: frozenset[str] = frozenset()
    _required: "tuple[_InputCheck, ...]" = field(init=False, repr=False, compare=False)
    _optional: "tuple[_InputCheck, ...]" = field(init=False, repr=False, compare=False)
    _inputs_by_name: Mapping[str, TensorSpec] = field(init=False, repr=False, compare=False)
    _output_names: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        axes = [spec.batch_axis for spec in (*self.inputs, *self.outputs)]
        if not self.batchable and any(axis is not None for axis in axes):
            msg = "a model that cannot batch has a tensor with a batch axis"
            raise ValueError(msg)
        if self.batchable and all(spec.batch_axis is None for spec in self.inputs if not spec.optional):
            msg = "a model that can batch has no required input with a batch axis"
            raise ValueError(msg)
        checks = _input_checks(self)
        # The only way to set a field of a frozen dataclass.
        object.__setattr__(self, "_required", tuple(check for check in checks if not check.spec.optional))
        object.__setattr__(self, "_optional", tuple(check for check in checks if check.spec.optional))
        object.__setattr__(self, "_inputs_by_name", {spec.name: spec for spec in self.inputs})
        object.__setattr__(self, "_output_names", tuple(spec.name for spec in self.outputs))

    def without_batch_axes(self) -> "ModelSignature":
        """Return the same inputs and outputs for a model that cannot batch."""
        return replace(
            self,
            inputs=tuple(replace(spec, batch_axis=None) for spec in self.inputs),
            outputs=tuple(replace(spec, batch_axis=None) for spec in self.outputs),
            batchable=False,
        )

    def input(self, name: str) -> TensorSpec:
        """Return the spec of input ``name``. Raises `InvalidInputError` for an unknown name."""
        spec = self._inputs_by_name.get(name)
        if spec is None:
            raise self._unknown_input(name)
        return spec

    def check(self, inputs: Tensors) -> CheckedInputs:
        """Validate ``inputs``. Raises `InvalidInputError` with the input, what was expected and what came."""
        given = self._given_optional(inputs) if len(inputs) != len(self._required) else ()
        request = _Request()
        for check in self._required:
            array = inputs.get(check.name)
            if array is None:
                raise self._wrong_names(inputs)
            check.take(array, request)
        for check in given:
            if self.batchable:
                # Only requests with the same optional inputs can be stacked.
                request.stack_key.append(check.name)
            check.take(inputs[check.name], request)
        return CheckedInputs(
            rows=1 if request.rows is None else request.rows, nbytes=request.nbytes, stack_key=tuple(request.stack_key)
        )

    def select_outputs(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return ``names`` without duplicates, or all outputs if empty. Raises `InvalidInputError`."""
        if not names:
            return self._output_names
        for name in names:
            if name not in self._output_names:
                msg = f'output "{clipped(name)}": expected one of {_quoted(self._output_names)}, got an unknown name'
                raise InvalidInputError(msg, at=Place("output", name, "name"))
        return tuple(dict.fromkeys(names))

    def _given_optional(self, inputs: Tensors) -> "tuple[_InputCheck, ...]":
        """Return the optional inputs present in ``inputs``. Raises if ``inputs`` has unknown or missing names."""
        given = tuple(check for check in self._optional if check.name in inputs)
        if len(inputs) != len(self._required) + len(given):
            raise self._wrong_names(inputs)
        return given

    def _unknown_input(self, name: str) -> InvalidInputError:
        known = _quoted(self._inputs_by_name)
        msg = f'input "{clipped(name)}": expected one of {known}, got an unknown name'
        return InvalidInputError(msg, at=Place("input", name, "name"))

    def _wrong_names(self, given: Tensors) -> InvalidInputError:
        for name in given:
            if name not in self._inputs_by_name:
                return self._unknown_input(name)
        missing = next(spec for spec in self.inputs if not spec.optional and spec.name not in given)
        shape = format_shape(missing.shape)
        msg = f'input "{missing.name}": expected {missing.datatype.name} {shape}, got no such input'
        return InvalidInputError(msg, at="inputs")


class _Request:
    """State of a validation: facts from the inputs checked so far."""

    __slots__ = ("nbytes", "rows", "rows_from", "stack_key", "symbols")

    def __init__(self) -> None:
        self.rows: int | None = None
        self.rows_from = ""
        self.nbytes = 0
        self.stack_key: list[Hashable] = []
        #: Size of each named dimension, and the input where it was first seen.
        self.symbols: dict[str, tuple[int, str]] = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class _InputCheck:
    """The checks of one input, precomputed because they run for every request."""

    name: str
    spec: TensorSpec
    dtype: np.dtype[np.generic]
    rank: int
    batch_axis: int | None
    fixed: tuple[tuple[int, int], ...]
    symbols: tuple[tuple[int, str], ...]
    key_axes: tuple[int, ...]
    key_is_value: bool

    def take(self, array: NDArray[np.generic], request: _Request) -> None:
        """Check ``array`` and add its facts to ``request``."""
        self._require_declared(array)
        shape = array.shape
        if self.batch_axis is not None:
            self._take_rows(shape, request)
        for axis, symbol in self.symbols:
            size, seen_in = request.symbols.setdefault(symbol, (shape[axis], self.name))
            if shape[axis] != size:
                raise self._error(f'{symbol} = {size} as in input "{seen_in}"', str(shape[axis]))
        request.nbytes += array.nbytes
        if self.dtype.hasobject:
            request.nbytes += self._text_bytes(array)
        for axis in self.key_axes:
            request.stack_key.append(shape[axis])
        if self.key_is_value:
            request.stack_key.append(_value(array))

    def _require_declared(self, array: NDArray[np.generic]) -> None:
        if array.dtype != self.dtype:
            raise self._error(self.spec.datatype.name, _type_name(array), "datatype")
        shape = array.shape
        if len(shape) != self.rank:
            raise self._shape_error(shape)
        for axis, size in self.fixed:
            if shape[axis] != size:
                raise self._shape_error(shape)

    def _take_rows(self, shape: tuple[int, ...], request: _Request) -> None:
        assert self.batch_axis is not None
        rows = shape[self.batch_axis]
        if request.rows is None:
            if rows == 0:
                raise self._error("at least 1 row", f"shape {format_shape(shape)}")
            request.rows = rows
            request.rows_from = self.name
        elif rows != request.rows:
            raise self._error(f'{request.rows} rows as in input "{request.rows_from}"', str(rows))

    def _text_bytes(self, array: NDArray[np.generic]) -> int:
        """Return the total length of the elements; reject invalid UTF-8, which ONNX Runtime cannot take."""
        # No UTF-8 sequence contains a zero byte, so a truncated element cannot combine with the next one.
        text = b"\0".join(array.ravel().tolist())
        try:
            text.decode()
        except UnicodeDecodeError:
            raise self._error("UTF-8 text", "other bytes", "elements") from None
        return len(text)

    def _shape_error(self, shape: tuple[int, ...]) -> InvalidInputError:
        return self._error(f"shape {format_shape(self.spec.shape)}", format_shape(shape))

    def _error(
        self, expected: str, got: str, aspect: Literal["shape", "datatype", "elements"] = "shape"
    ) -> InvalidInputError:
        msg = f'input "{self.name}": expected {expected}, got {got}'
        return InvalidInputError(msg, at=Place("input", self.name, aspect))


def _input_checks(signature: ModelSignature) -> tuple[_InputCheck, ...]:
    named = Counter(symbol for spec in signature.inputs for _, symbol in _inner_symbols(spec))
    # A name that occurs once is compared with nothing.
    compared = frozenset(symbol for symbol, count in named.items() if count > 1) - signature.loose_dimensions
    return tuple(_input_check(spec, batchable=signature.batchable, compared=compared) for spec in signature.inputs)


def _input_check(spec: TensorSpec, *, batchable: bool, compared: frozenset[str]) -> _InputCheck:
    shared = spec.batch_axis is None
    open_axes = (axis for axis, size in enumerate(spec.shape) if not isinstance(size, int))
    return _InputCheck(
        name=spec.name,
        spec=spec,
        dtype=spec.datatype.numpy,
        rank=len(spec.shape),
        batch_axis=spec.batch_axis,
        fixed=tuple((axis, size) for axis, size in enumerate(spec.shape) if isinstance(size, int)),
        symbols=tuple((axis, symbol) for axis, symbol in _inner_symbols(spec) if symbol in compared),
        key_axes=tuple(axis for axis in open_axes if axis != spec.batch_axis) if batchable and not shared else (),
        key_is_value=batchable and shared,
    )


def _inner_symbols(spec: TensorSpec) -> list[tuple[int, str]]:
    """Return the named open dimensions except the batch axis, which is compared as rows whatever its name."""
    return [(axis, size) for axis, size in enumerate(spec.shape) if isinstance(size, str) and axis != spec.batch_axis]


def _value(array: NDArray[np.generic]) -> Hashable:
    contents = tuple(array.ravel().tolist()) if array.dtype.hasobject else array.tobytes()
    return array.shape, contents


def format_shape(shape: Iterable[int | str | None]) -> str:
    """Format a shape for messages: open dimensions by name, or as -1."""
    return f"[{listed(['-1' if size is None else size for size in shape], most=_MOST_DIMENSIONS, separator=',')}]"


def _type_name(array: NDArray[np.generic]) -> str:
    datatype = BY_NUMPY.get(array.dtype)
    return str(array.dtype) if datatype is None else datatype.name


def _quoted(names: Iterable[str]) -> str:
    return listed(f'"{name}"' for name in names)

"""From what a model declares to what a batch of it looks like. Pure: knows no session.

A model can batch when some open dimension counts rows: it is in the batched inputs and comes back in the outputs. Names
are the best evidence ("batch" in every tensor); without them an open first dimension is taken to be it. A name that
occurs once says nothing: some exporters make one up for every open dimension. What is found here are claims, which
`inferd.runtime.batch_axes.verification` puts to the test before the model is served.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from inferd.config.settings import ModelSettings, TensorOverride
from inferd.dtypes import BY_ONNX
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.signature import ModelSignature, TensorSpec, format_shape

Kind = Literal["input", "output"]
#: Batch axis by tensor name, as far as settings say; None is a tensor that a whole batch shares.
Axes = Mapping[str, int | None]


_NO_INPUT = "no input has an open dimension that counts rows"


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """A signature, and if it is not batchable why not, in words for the operator."""

    signature: ModelSignature
    why_not_batchable: str = ""


class _NotBatchableError(Exception):
    """The dimension that was tried does not count rows; the text says why."""


def tensor_spec(kind: Kind, name: str, onnx_type: str, shape: Sequence[int | str | None]) -> TensorSpec:
    """Make a spec of what ONNX Runtime reports; raise `ModelLoadError` for what cannot be sent over the wire."""
    if not onnx_type.startswith("tensor("):
        advice = '; convert it with zipmap off (options={"zipmap": False})' if "map(" in onnx_type else ""
        msg = f'{kind} "{name}" is of type {onnx_type}, only tensors can be served{advice}'
        raise ModelLoadError(msg)
    datatype = BY_ONNX.get(onnx_type)
    if datatype is None:
        msg = f'{kind} "{name}" is of type {onnx_type}, an element type that cannot be sent over the wire'
        raise ModelLoadError(msg)
    return TensorSpec(name=name, datatype=datatype, shape=tuple(map(_dimension, shape)))


def inspect(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], settings: ModelSettings) -> list[Inspection]:
    """Return what may be the batch axes of ``inputs`` and ``outputs``, the likeliest claim first.

    A model of which nothing can be claimed gets a single inspection without batch axes. Raises `ModelLoadError` for
    settings that contradict the model.
    """
    loose = loose_dimensions(settings.loose_dimensions, inputs)
    given_inputs = _given_axes("input", inputs, settings.inputs)
    given_outputs = _given_axes("output", outputs, settings.outputs)
    telling = _telling_names(inputs, outputs) - loose
    likely = {size for spec in inputs for size in spec.shape if isinstance(size, str) and _means_the_batch(size)}
    known = [_known(spec, telling | likely - loose) for spec in inputs if not spec.optional]
    claims: list[Inspection] = []
    failures: list[str] = []
    for symbol in _candidates(known, given_inputs):
        try:
            found_inputs = tuple(_batched_input(spec, symbol, given_inputs, telling) for spec in inputs)
            found_outputs = tuple(_batched_output(spec, symbol, given_outputs) for spec in outputs)
            _require_batched(found_inputs, found_outputs)
        except _NotBatchableError as error:
            failures.append(str(error))
            continue
        signature = ModelSignature(inputs=found_inputs, outputs=found_outputs, batchable=True, loose_dimensions=loose)
        claims.append(Inspection(signature=signature))
    if claims:
        return claims
    why_not = failures[0] if failures else _NO_INPUT
    if any(axis is not None for axis in (*given_inputs.values(), *given_outputs.values())):
        msg = f"batch_axis is set, but the model cannot batch: {why_not}"
        raise ModelLoadError(msg)
    unbatched = ModelSignature(inputs=tuple(inputs), outputs=tuple(outputs), batchable=False, loose_dimensions=loose)
    return [Inspection(signature=unbatched, why_not_batchable=why_not)]


def _telling_names(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> frozenset[str]:
    """Return the names of dimensions that occur again."""
    counts = Counter(size for spec in (*inputs, *outputs) for size in spec.shape if isinstance(size, str))
    return frozenset(name for name, count in counts.items() if count > 1)


def _means_the_batch(name: str) -> bool:
    return "batch" in name.lower() or name.lower() in {"n", "b", "bs"}


def _known(spec: TensorSpec, telling: frozenset[str]) -> TensorSpec:
    """Return ``spec`` without the names that say nothing."""
    return replace(
        spec, shape=tuple(size if not isinstance(size, str) or size in telling else None for size in spec.shape)
    )


def has_configured_axes(settings: ModelSettings) -> bool:
    """Whether the settings say of any tensor where its rows are."""
    overrides = (*settings.inputs.values(), *settings.outputs.values())
    return any(override.batch_axis is not None for override in overrides)


def _candidates(inputs: Sequence[TensorSpec], given: Axes) -> list[str | None]:
    """Return the names that the batch dimension may have, the likeliest first; None for one without a name."""
    if any(axis is not None for axis in given.values()):
        return list(
            dict.fromkeys(_at_axis(spec, given[spec.name]) for spec in inputs if given.get(spec.name) is not None)
        )
    mine = [spec for spec in inputs if spec.name not in given]
    named = dict.fromkeys(size for spec in mine for size in spec.shape if isinstance(size, str))
    ranked = sorted((rank, symbol) for symbol in named if (rank := _rank(symbol, mine)) is not None)
    anonymous = any(spec.shape[:1] == (None,) for spec in mine)
    return [symbol for _, symbol in ranked] + ([None] if anonymous else [])


def _rank(symbol: str, inputs: Sequence[TensorSpec]) -> tuple[int, int] | None:
    """Return how unlikely ``symbol`` is to be the batch dimension, None if it is out of the question.

    A dimension that is not the first counts only by its name: [1,length] is not a batch of samples.
    """
    shapes = [spec.shape for spec in inputs if symbol in spec.shape]
    leads = all(shape[0] == symbol for shape in shapes)
    if "batch" in symbol.lower():
        return 0, 0 if leads else 1
    if symbol.lower() in {"n", "b", "bs"} and (leads or all(shape[0] != 1 for shape in shapes)):
        return 1, 0 if leads else 1
    return (2, 0) if leads else None


def _batched_input(spec: TensorSpec, symbol: str | None, given: Axes, telling: frozenset[str]) -> TensorSpec:
    if spec.name in given:
        return replace(spec, batch_axis=given[spec.name])
    axis = _axis_of("input", spec, symbol)
    if spec.optional:
        # Its default is there for any number of rows, so that it is shared unless its name says otherwise.
        return replace(spec, batch_axis=axis)
    first = _known(spec, telling).shape[0] if spec.shape else 1
    if axis is None and first is None:
        axis = 0
    if axis is None and isinstance(first, str):
        msg = (
            f'input "{spec.name}" {format_shape(spec.shape)} starts with an open dimension other than {symbol or "-1"}'
        )
        raise _NotBatchableError(msg)
    return replace(spec, batch_axis=axis)


def _batched_output(spec: TensorSpec, symbol: str | None, given: Axes) -> TensorSpec:
    if spec.name in given:
        return replace(spec, batch_axis=given[spec.name])
    axis = _axis_of("output", spec, symbol)
    if axis is None and spec.shape and not isinstance(spec.shape[0], int):
        # Exporters often lose the name on the way to the outputs, or make one up.
        axis = 0
    return replace(spec, batch_axis=axis)


def _axis_of(kind: Kind, spec: TensorSpec, symbol: str | None) -> int | None:
    if symbol is None or symbol not in spec.shape:
        return None
    if spec.shape.count(symbol) > 1:
        msg = f'{kind} "{spec.name}" {format_shape(spec.shape)} has the dimension {symbol} twice'
        raise _NotBatchableError(msg)
    return spec.shape.index(symbol)


def _require_batched(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    if all(spec.batch_axis is None for spec in inputs if not spec.optional):
        raise _NotBatchableError(_NO_INPUT)
    # An output that is declared without dimensions may be one whose rank the model does not tell; a run will.
    if all(spec.batch_axis is None and spec.shape for spec in outputs):
        msg = "no output has an open dimension that counts rows"
        raise _NotBatchableError(msg)


def _given_axes(kind: Kind, specs: Sequence[TensorSpec], overrides: Mapping[str, TensorOverride]) -> Axes:
    by_name = {spec.name: spec for spec in specs}
    axes: dict[str, int | None] = {}
    for name, override in overrides.items():
        if name not in by_name:
            msg = f"{kind}s.{name}: the model has no such {kind}, it has {', '.join(by_name)}"
            raise ModelLoadError(msg)
        _check_warmup_shape(kind, by_name[name], override.warmup_shape)
        if "batch_axis" in override.model_fields_set:
            _check_axis(kind, by_name[name], override.batch_axis)
            axes[name] = override.batch_axis
    return axes


def _check_axis(kind: Kind, spec: TensorSpec, axis: int | None) -> None:
    # An output declared without dimensions may have some all the same; an input has not.
    if axis is None or (kind == "output" and not spec.shape):
        return
    if axis >= len(spec.shape) or isinstance(spec.shape[axis], int):
        msg = f"{kind}s.{spec.name}.batch_axis: expected an open dimension of {format_shape(spec.shape)}, got {axis}"
        raise ModelLoadError(msg)


def _check_warmup_shape(kind: Kind, spec: TensorSpec, shape: list[int] | None) -> None:
    if shape is None:
        return
    if kind == "output":
        msg = f"outputs.{spec.name}.warmup_shape: only inputs have one"
        raise ModelLoadError(msg)
    fits = len(shape) == len(spec.shape) and all(
        not isinstance(declared, int) or given == declared for given, declared in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        msg = f"inputs.{spec.name}.warmup_shape: expected a shape that fits {format_shape(spec.shape)}, got {shape}"
        raise ModelLoadError(msg)


def _at_axis(spec: TensorSpec, axis: int | None) -> str | None:
    assert axis is not None
    size = spec.shape[axis]
    return size if isinstance(size, str) else None


def _dimension(size: int | str | None) -> int | str | None:
    if isinstance(size, str):
        # Some exporters write "?" or "-1" into every open dimension, which does not make them equal.
        return size if any(map(str.isalpha, size)) else None
    # Some write -1 where they mean a dimension that is open.
    return None if size is None or size < 0 else size


def loose_dimensions(names: Sequence[str], inputs: Sequence[TensorSpec]) -> frozenset[str]:
    """Return ``names`` for a `ModelSignature`. Raises `ModelLoadError` for one that no open dimension of them has."""
    known = dict.fromkeys(size for spec in inputs for size in spec.shape if isinstance(size, str))
    for name in names:
        if name not in known:
            have = ", ".join(known) or "none with a name"
            msg = f"loose_dimensions: expected open dimensions of the model's inputs, which are {have}, got {name}"
            raise ModelLoadError(msg)
    return frozenset(names)

"""Infer candidate batch axes from the declared shapes of a model. Pure: runs nothing.

A model can batch if some open dimension counts rows, in its inputs and in its outputs. Dimension names are the best
evidence ("batch" in every tensor); without them an open first dimension is the candidate. A name that occurs only once
is no evidence: some exporters invent one for every open dimension. `verification` tests the candidates.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from inferd.config.settings import ModelSettings
from inferd.config.tensors import InputOverride, TensorOverride
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.signature import ModelSignature, TensorSpec, format_shape

Kind = Literal["input", "output"]
#: Configured batch axis by tensor name; None is a tensor that all rows of a batch share.
Axes = Mapping[str, int | None]

_NO_INPUT = "no input has an open dimension that counts rows"


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A signature with batch axes to verify, or one without any and the reason.

    ``is_chosen``: the settings say that there are none.
    """

    signature: ModelSignature
    why_not_batchable: str = ""
    is_chosen: bool = False


class _NotBatchableError(Exception):
    """The dimension tried cannot count rows; the text says why."""


def infer_batch_axes(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], settings: ModelSettings
) -> list[Candidate]:
    """Return the candidates for the batch axes of ``inputs`` and ``outputs``, the likeliest first.

    If there are none, the only element has no batch axes. Raises `ModelLoadError` for settings that contradict the
    model.
    """
    loose = loose_dimensions(settings.loose_dimensions, inputs)
    unbatched = ModelSignature(inputs=tuple(inputs), outputs=tuple(outputs), batchable=False, loose_dimensions=loose)
    first = settings.batch_axes == "first"
    configured_inputs = _configured_axes("input", inputs, settings.inputs, first=first)
    configured_outputs = _configured_axes("output", outputs, settings.outputs, first=first)
    if settings.batch_axes == "none":
        return [Candidate(signature=unbatched, why_not_batchable="batch_axes is none", is_chosen=True)]
    repeated = _repeated_names(inputs, outputs) - loose
    likely = {size for spec in inputs for size in spec.shape if isinstance(size, str) and _suggests_batch(size)}
    known = [_known(spec, repeated | likely - loose) for spec in inputs if not spec.optional]
    candidates: list[Candidate] = []
    failures: list[str] = []
    for symbol in _candidate_symbols(known, configured_inputs):
        try:
            found_inputs = tuple(_batched_input(spec, symbol, configured_inputs, repeated) for spec in inputs)
            found_outputs = tuple(_batched_output(spec, symbol, configured_outputs) for spec in outputs)
            _require_batched(found_inputs, found_outputs)
        except _NotBatchableError as error:
            failures.append(str(error))
            continue
        signature = ModelSignature(inputs=found_inputs, outputs=found_outputs, batchable=True, loose_dimensions=loose)
        candidates.append(Candidate(signature=signature))
    if candidates:
        return candidates
    why_not = failures[0] if failures else _NO_INPUT
    if any(axis is not None for axis in (*configured_inputs.values(), *configured_outputs.values())):
        msg = f"{describe_axes_setting(settings)}, but the model cannot batch: {why_not}"
        raise ModelLoadError(msg)
    return [Candidate(signature=unbatched, why_not_batchable=why_not)]


def _repeated_names(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> frozenset[str]:
    """Return the dimension names that occur more than once."""
    counts = Counter(size for spec in (*inputs, *outputs) for size in spec.shape if isinstance(size, str))
    return frozenset(name for name, count in counts.items() if count > 1)


def _suggests_batch(name: str) -> bool:
    return "batch" in name.lower() or name.lower() in {"n", "b", "bs"}


def _known(spec: TensorSpec, repeated: frozenset[str]) -> TensorSpec:
    """Return ``spec`` without the dimension names that are no evidence."""
    return replace(
        spec, shape=tuple(size if not isinstance(size, str) or size in repeated else None for size in spec.shape)
    )


def has_configured_axes(settings: ModelSettings) -> bool:
    """Return whether the settings give the batch axis of any tensor."""
    if settings.batch_axes == "first":
        return True
    overrides = (*settings.inputs.values(), *settings.outputs.values())
    return any(override.batch_axis is not None for override in overrides)


def describe_axes_setting(settings: ModelSettings) -> str:
    """Return a clause that names the setting of the batch axes, for messages."""
    return "batch_axes is first" if settings.batch_axes == "first" else "batch_axis is set"


def _candidate_symbols(inputs: Sequence[TensorSpec], configured: Axes) -> list[str | None]:
    """Return the possible names of the batch dimension, the likeliest first; None for an unnamed one."""
    if any(axis is not None for axis in configured.values()):
        return list(
            dict.fromkeys(
                _at_axis(spec, configured[spec.name]) for spec in inputs if configured.get(spec.name) is not None
            )
        )
    others = [spec for spec in inputs if spec.name not in configured]
    named = dict.fromkeys(size for spec in others for size in spec.shape if isinstance(size, str))
    ranked = sorted((rank, symbol) for symbol in named if (rank := _rank(symbol, others)) is not None)
    anonymous = any(spec.shape[:1] == (None,) for spec in others)
    return [symbol for _, symbol in ranked] + ([None] if anonymous else [])


def _rank(symbol: str, inputs: Sequence[TensorSpec]) -> tuple[int, int] | None:
    """Return a sort key for ``symbol`` as the batch dimension, the likeliest lowest; None if it cannot be.

    A dimension other than the first qualifies only by its name: [1,length] is not a batch.
    """
    shapes = [spec.shape for spec in inputs if symbol in spec.shape]
    leads = all(shape[0] == symbol for shape in shapes)
    if "batch" in symbol.lower():
        return 0, 0 if leads else 1
    if symbol.lower() in {"n", "b", "bs"} and (leads or all(shape[0] != 1 for shape in shapes)):
        return 1, 0 if leads else 1
    return (2, 0) if leads else None


def _batched_input(spec: TensorSpec, symbol: str | None, configured: Axes, repeated: frozenset[str]) -> TensorSpec:
    if spec.name in configured:
        return replace(spec, batch_axis=configured[spec.name])
    axis = _axis_of("input", spec, symbol)
    if spec.optional:
        # The default must suit any number of rows, so the input is shared unless its name says otherwise.
        return replace(spec, batch_axis=axis)
    first = _known(spec, repeated).shape[0] if spec.shape else 1
    if axis is None and first is None:
        axis = 0
    if axis is None and isinstance(first, str):
        msg = (
            f'input "{spec.name}" {format_shape(spec.shape)} starts with an open dimension other than {symbol or "-1"}'
        )
        raise _NotBatchableError(msg)
    return replace(spec, batch_axis=axis)


def _batched_output(spec: TensorSpec, symbol: str | None, configured: Axes) -> TensorSpec:
    if spec.name in configured:
        return replace(spec, batch_axis=configured[spec.name])
    axis = _axis_of("output", spec, symbol)
    if axis is None and spec.shape and not isinstance(spec.shape[0], int):
        # Exporters often drop or invent the names of output dimensions.
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
    # An output declared without dimensions may have an undeclared rank, which a run will show.
    if all(spec.batch_axis is None and spec.shape for spec in outputs):
        msg = "no output has an open dimension that counts rows"
        raise _NotBatchableError(msg)


def _configured_axes(
    kind: Kind, specs: Sequence[TensorSpec], overrides: Mapping[str, TensorOverride], *, first: bool
) -> Axes:
    """Return the axes that the settings give. ``first``: 0 for the tensors that have none there."""
    by_name = {spec.name: spec for spec in specs}
    axes: dict[str, int | None] = dict.fromkeys(by_name, 0) if first else {}
    explicit = {name: each.batch_axis for name, each in overrides.items() if "batch_axis" in each.model_fields_set}
    axes.update(explicit)
    for name, override in overrides.items():
        if isinstance(override, InputOverride):
            _check_warmup_shape(by_name[name], override.warmup_shape)
    for name, axis in axes.items():
        _check_axis(kind, by_name[name], axis, is_said_of_all=name not in explicit)
    return axes


def _check_axis(kind: Kind, spec: TensorSpec, axis: int | None, *, is_said_of_all: bool) -> None:
    # An output declared without dimensions may have an undeclared rank; an input may not.
    if axis is None or (kind == "output" and not spec.shape):
        return
    if axis >= len(spec.shape) or isinstance(spec.shape[axis], int):
        shape = format_shape(spec.shape)
        msg = f"{kind}s.{spec.name}.batch_axis: expected an open dimension of {shape}, got {axis}"
        if is_said_of_all:
            msg = (
                f'batch_axes is first (a max_batch_size above 0), but the first dimension of {kind} "{spec.name}" '
                f"{shape} is not open: export it so, or set batch_axes to none (max_batch_size to 0)"
            )
        raise ModelLoadError(msg)


def _check_warmup_shape(spec: TensorSpec, shape: list[int] | None) -> None:
    if shape is None:
        return
    fits = len(shape) == len(spec.shape) and all(
        not isinstance(declared, int) or configured == declared
        for configured, declared in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        msg = f"inputs.{spec.name}.warmup_shape: expected a shape that fits {format_shape(spec.shape)}, got {shape}"
        raise ModelLoadError(msg)


def _at_axis(spec: TensorSpec, axis: int | None) -> str | None:
    assert axis is not None
    size = spec.shape[axis]
    return size if isinstance(size, str) else None


def loose_dimensions(names: Sequence[str], inputs: Sequence[TensorSpec]) -> frozenset[str]:
    """Return the configured ``names`` as a set. Raises `ModelLoadError` for one that ``inputs`` do not have."""
    known = dict.fromkeys(size for spec in inputs for size in spec.shape if isinstance(size, str))
    for name in names:
        if name not in known:
            have = ", ".join(known) or "none with a name"
            msg = f"loose_dimensions: expected open dimensions of the model's inputs, which are {have}, got {name}"
            raise ModelLoadError(msg)
    return frozenset(names)

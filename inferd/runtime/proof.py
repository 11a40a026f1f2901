"""Put what a model declares to the test by running it on made-up rows. Pure but for the run it is given.

Two things can be wrong with a claim that a model batches: an output's rows do not follow the inputs' rows, or a row's
answer depends on the rows beside it (a mean over the batch, a recurrence along what was taken for the batch axis).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np

from inferd.config.settings import TensorOverride
from inferd.dtypes import BYTES
from inferd.runtime.inspection import Inspection
from inferd.runtime.signature import ModelSignature, Tensors, TensorSpec, format_shape
from inferd.runtime.stacking import Array, stack

#: Runs the model and returns all of its outputs.
Run = Callable[[Tensors], Mapping[str, Array]]

#: Rows of the batch that the model is tried with. The second differs from the others, so that its influence shows on
#: those before it and on those after it, and so that another order shows as well.
_ROWS = 4

#: Sizes to try for open dimensions other than the batch's, until the model runs. Convolutions need room.
_OPEN_SIZES = (1, 8, 32, 224)

#: How far answers of one row may differ between batches, relative to the output's largest element.
_TOLERANCE = 0.01
#: How far they may differ in any case: what is zero alone may be a rounding error in a batch.
_ROUNDING = 1e-5

_log = logging.getLogger("inferd.runtime")


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeUpInputs:
    """Makes inputs that fit a signature: all elements alike, open dimensions of ``open_size`` or as overridden."""

    signature: ModelSignature
    overrides: Mapping[str, TensorOverride]
    open_size: int

    def rows(self, count: int, *, fill: int = 0) -> dict[str, Array]:
        """Return inputs of ``count`` rows whose elements are ``fill``; shared inputs are always 1."""
        return {spec.name: self._tensor(spec, count, fill) for spec in self.signature.inputs}

    def _tensor(self, spec: TensorSpec, rows: int, fill: int) -> Array:
        override = self.overrides.get(spec.name)
        shape: Sequence[int | str | None] = spec.shape
        if override is not None and override.warmup_shape is not None:
            shape = override.warmup_shape
        sizes = [size if isinstance(size, int) else self.open_size for size in shape]
        if spec.batch_axis is not None:
            sizes[spec.batch_axis] = rows
        element = fill if spec.batch_axis is not None else 1
        if spec.datatype is BYTES:
            return np.full(sizes, b"%d" % element, object)
        return np.full(sizes, element, spec.datatype.numpy)


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """What the runs have shown.

    ``made_up`` is None if the model could not be run on made-up inputs; then the inspection stands as it was.
    ``contradiction`` says what is wrong with the claimed batch axes, and ``influence`` which output's rows depend on
    each other.
    """

    inspection: Inspection
    made_up: MadeUpInputs | None
    contradiction: str = ""
    influence: str = ""


def prove(inspection: Inspection, run: Run, overrides: Mapping[str, TensorOverride]) -> Proof:
    """Run the model on one row and on several, and hold its outputs against ``inspection``."""
    made_up, one = _first_run(inspection.signature, run, overrides)
    if made_up is None:
        return Proof(inspection=inspection, made_up=None)
    if not inspection.signature.batchable:
        outputs = tuple(_with_true_rank(spec, one[spec.name]) for spec in inspection.signature.outputs)
        signature = replace(inspection.signature, outputs=outputs)
        return Proof(inspection=replace(inspection, signature=signature), made_up=replace(made_up, signature=signature))
    return _prove_batchable(inspection.signature, run, made_up, one)


def unbatchable(signature: ModelSignature, why: str) -> Inspection:
    """Return the same inputs and outputs without batch axes."""
    return Inspection(
        signature=ModelSignature(
            inputs=tuple(replace(spec, batch_axis=None) for spec in signature.inputs),
            outputs=tuple(replace(spec, batch_axis=None) for spec in signature.outputs),
            batchable=False,
        ),
        why_not_batchable=why,
    )


def _first_run(
    signature: ModelSignature, run: Run, overrides: Mapping[str, TensorOverride]
) -> tuple[MadeUpInputs | None, Mapping[str, Array]]:
    for open_size in _OPEN_SIZES:
        made_up = MadeUpInputs(signature=signature, overrides=overrides, open_size=open_size)
        try:
            return made_up, run(made_up.rows(1))
        except Exception as error:  # noqa: BLE001  (ONNX Runtime raises many kinds, and any of them means the same here)
            _log.debug("the model does not run with open dimensions of %d: %s", open_size, error)
    return None, {}


def _prove_batchable(signature: ModelSignature, run: Run, made_up: MadeUpInputs, one: Mapping[str, Array]) -> Proof:
    other = _row_of_ones(run, made_up)
    odd = made_up.rows(1, fill=0 if other is None else 1)
    try:
        batch = run(stack(signature, [made_up.rows(1), odd, made_up.rows(_ROWS - 2)]))
    except Exception as error:  # noqa: BLE001  (ONNX Runtime raises many kinds, and any of them means the same here)
        contradiction = f"the model runs with one row, but not with {_ROWS}"
        _log.debug("%s: %s", contradiction, error)
        return _refuted(signature, made_up, contradiction)
    outputs = tuple(_with_true_rank(spec, one[spec.name]) for spec in signature.outputs)
    outputs = tuple(_with_found_axis(spec, one[spec.name], batch[spec.name]) for spec in outputs)
    for spec in outputs:
        if not _follows(spec, one[spec.name], batch[spec.name]):
            return _refuted(signature, made_up, _describe(spec, one[spec.name], batch[spec.name]))
    if all(spec.batch_axis is None for spec in outputs):
        return _refuted(signature, made_up, "no output has a dimension that follows the rows")
    proven = replace(signature, outputs=outputs)
    return Proof(
        inspection=Inspection(signature=proven),
        made_up=replace(made_up, signature=proven),
        influence=_influence(outputs, [one, one if other is None else other, *[one] * (_ROWS - 2)], batch),
    )


def _refuted(signature: ModelSignature, made_up: MadeUpInputs, contradiction: str) -> Proof:
    inspection = unbatchable(signature, contradiction)
    return Proof(
        inspection=inspection,
        made_up=replace(made_up, signature=inspection.signature),
        contradiction=contradiction,
    )


def _row_of_ones(run: Run, made_up: MadeUpInputs) -> Mapping[str, Array] | None:
    try:
        return run(made_up.rows(1, fill=1))
    except Exception as error:  # noqa: BLE001  (a table with one entry, say: then zeros have to do)
        _log.debug("the model does not run on ones: %s", error)
        return None


def _with_true_rank(spec: TensorSpec, seen: Array) -> TensorSpec:
    """Open all dimensions of an output declared without any, which may mean that its rank is not known."""
    return spec if spec.shape or seen.ndim == 0 else replace(spec, shape=(None,) * seen.ndim)


def _with_found_axis(spec: TensorSpec, one: Array, batch: Array) -> TensorSpec:
    """Find the batch axis of an output that did not declare its dimensions."""
    if spec.batch_axis is not None or any(size is not None for size in spec.shape):
        return spec
    axes = [axis for axis, sizes in enumerate(zip(one.shape, batch.shape, strict=False)) if sizes == (1, _ROWS)]
    return replace(spec, batch_axis=axes[0]) if len(axes) == 1 else spec


def _follows(spec: TensorSpec, one: Array, batch: Array) -> bool:
    """Whether ``one`` and ``batch`` differ in their rows and in nothing else."""
    expected = list(one.shape)
    if spec.batch_axis is not None:
        if one.ndim <= spec.batch_axis or one.shape[spec.batch_axis] != 1:
            return False
        expected[spec.batch_axis] = _ROWS
    return list(batch.shape) == expected


def _describe(spec: TensorSpec, one: Array, batch: Array) -> str:
    shapes = f"{format_shape(one.shape)} for one row and {format_shape(batch.shape)} for {_ROWS}"
    return (
        f'the rows of output "{spec.name}" {format_shape(spec.shape)} do not follow those of the inputs: it is {shapes}'
    )


def _influence(outputs: Sequence[TensorSpec], alone: Sequence[Mapping[str, Array]], batch: Mapping[str, Array]) -> str:
    """Say which output's rows have other values in a batch than alone; only of floating-point ones.

    Whole numbers are left out because a class chosen from equal scores may rightly differ.
    """
    for spec in outputs:
        if np.dtype(spec.datatype.numpy).kind != "f" and spec.datatype.numpy != ml_dtypes.bfloat16:
            continue
        for row, single in enumerate(alone):
            array = batch[spec.name]
            if spec.batch_axis is not None:
                array = np.take(array, [row], axis=spec.batch_axis)
            if not _close(array, single[spec.name]):
                return f'the values of output "{spec.name}" depend on the other rows of a batch'
    return ""


def _close(left: Array, right: Array) -> bool:
    if left.shape != right.shape:
        return False
    a, b = left.astype(np.float64), right.astype(np.float64)
    largest = float(np.abs(b[np.isfinite(b)]).max(initial=0))
    return np.allclose(a, b, rtol=_TOLERANCE, atol=_TOLERANCE * largest + _ROUNDING, equal_nan=True)

"""Compare the outputs of rows in a batch with those of the same rows alone, and find the cause of a mismatch.

Integers, booleans and strings must be equal. Floats may differ by what another order of summation explains, element by
element: the tolerance of an element follows from its own magnitude and from the typical magnitude at its index in other
outputs, never from the largest element of the output, which may be a pixel next to a score.

A difference has one of four causes (`Cause`). To find it, the rows run again at the same index of a batch of the same
size that holds only copies of them. A changed result means that the other rows mattered. An unchanged result means that
the batch size mattered: kernels sum in another order, which explains a small difference only, unless the model is so
ill-conditioned that changing the last bits of the inputs makes as much of a difference.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from inferd.runtime.signature import Array, ModelSignature, Tensors

#: Typical magnitude of each element of an output, relative to the largest element of that output.
Profile = NDArray[np.float64]

#: Relative tolerance by type. FP16 has 11 significant bits and BF16 has 8; matrix products accumulate in FP32 or wider
#: but are rounded after each operator.
_TOLERANCE = {np.dtype(np.float16): 2e-2, np.dtype(ml_dtypes.bfloat16): 1e-1}
_TOLERANCE_OF_FLOATS = 2e-4

#: Tolerance relative to the largest element of the output: the residue where large numbers cancel out.
_CANCELLED = 2e-6
_CANCELLED_IN_HALF = 2e-3


@dataclass(frozen=True, slots=True)
class Difference:
    """The element that differs most. ``relative`` is inf if the shapes differ or the elements are not floats."""

    index: tuple[int, ...]
    alone: str
    batched: str
    relative: float = np.inf

    @property
    def location(self) -> str:
        """Index of the element as text; empty for a scalar, or if the shapes differ."""
        return f"element {list(self.index)}" if self.index else ""

    @property
    def amount(self) -> str:
        """Size of the difference, without quoting a value."""
        if np.isinf(self.relative):
            return "differs"
        # Relative to an element near zero the figure says nothing.
        return f"differs by {self.relative:.1%}" if self.relative <= 1 else "differs by more than 100 %"


def is_float(array: Array) -> bool:
    """Whether ``array`` has floating-point elements of any width."""
    return array.dtype.kind == "f" or array.dtype == ml_dtypes.bfloat16


def profile(answers: Sequence[Array]) -> Profile | None:
    """Return the typical relative magnitude of each element, from outputs of equal shape; None if undefined.

    It is the median, so that a few rows of another magnitude do not hide differences in the rest.
    """
    shapes = {answer.shape for answer in answers}
    if len(shapes) != 1 or not is_float(answers[0]) or answers[0].size == 0:
        return None
    sizes = np.abs(np.asarray(np.stack(answers), np.float64))
    sizes = np.where(np.isfinite(sizes), sizes, 0.0).reshape(len(answers), -1)
    largest = sizes.max(axis=1, keepdims=True)
    relative = np.divide(sizes, largest, out=np.zeros_like(sizes), where=largest > 0)
    return np.asarray(np.median(relative, axis=0).reshape(answers[0].shape))


def difference(alone: Array, batched: Array, typical: Profile | None = None) -> Difference | None:
    """Return how ``batched`` differs from ``alone``, None if within tolerance; ``typical`` comes from `profile`."""
    if alone.shape != batched.shape:
        return Difference((), f"of shape {list(alone.shape)}", f"of shape {list(batched.shape)}")
    if alone.size == 0:
        return None
    if not is_float(alone):
        unequal = np.asarray(alone != batched)
        return _worst(alone, batched, unequal, None) if unequal.any() else None
    return _difference_of_floats(alone, batched, typical)


def _difference_of_floats(alone: Array, batched: Array, typical: Profile | None) -> Difference | None:
    # The common case, and cheap to test.
    if alone.tobytes() == batched.tobytes():
        return None
    a, b = np.asarray(alone, np.float64), np.asarray(batched, np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.where(finite, np.abs(a - b), 0.0)
        sizes = np.where(finite, np.abs(a), 0.0)
        if typical is not None and typical.shape == sizes.shape:
            sizes = np.maximum(sizes, typical * sizes.max(initial=0.0))
        half = alone.dtype in _TOLERANCE
        allowed = _TOLERANCE.get(alone.dtype, _TOLERANCE_OF_FLOATS) * sizes
        allowed += (_CANCELLED_IN_HALF if half else _CANCELLED) * sizes.max(initial=0.0) + 1e-30
        unequal = (apart > allowed) | (~finite & ~((a == b) | (np.isnan(a) & np.isnan(b))))
        if not unequal.any():
            return None
        return _worst(alone, batched, unequal, np.where(finite, apart / np.maximum(sizes, 1e-30), np.inf))


def _worst(alone: Array, batched: Array, unequal: NDArray[np.bool_], relative: Array | None) -> Difference:
    flat_index = int(np.argmax(unequal if relative is None else np.where(unequal, relative, -1.0)))
    index = np.unravel_index(flat_index, alone.shape)
    size = np.inf if relative is None else float(relative.ravel()[flat_index])
    return Difference(tuple(map(int, index)), _shown(alone[index]), _shown(batched[index]), size)


def _shown(element: object) -> str:
    if isinstance(element, bytes):
        return repr(element.decode(errors="replace")[:40])
    return f"{element:.6g}" if isinstance(element, float | np.floating) else str(element)


def take_rows(array: Array, axis: int | None, start: int, stop: int) -> Array:
    """Return a view of the rows from ``start`` to ``stop``; all of it if it has no batch axis."""
    return array if axis is None else array[(*(slice(None),) * axis, slice(start, stop))]


#: Runs the model and returns the outputs to compare.
Run = Callable[[Tensors], Mapping[str, Array]]

#: Typical magnitudes by output name; see `profile`.
Profiles = Mapping[str, Profile | None]

#: A relative change of the last bits of a 24-bit significand; differences of up to this many times the change of output
#: that it causes are noise; and the number of perturbed runs.
_PERTURBATION = 2.0**-22
_NOISE_FACTOR = 8.0
_PERTURBED_RUNS = 3


class Cause(Enum):
    """Why an output in a batch differs from that of the same rows alone."""

    OTHER_ROWS = "it depends on the other rows of the batch"
    SIZE = "it depends on how many rows the batch has"
    ROUNDING = "it is a choice between values that are nearly equal"
    NOISE = "the last bits of the inputs make as much of a difference"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """An output that differs, at which element, and why."""

    output: str
    difference: Difference
    cause: Cause
    batch_rows: int

    def __str__(self) -> str:
        values = f"is {self.difference.alone} alone and {self.difference.batched} in a batch of {self.batch_rows} rows"
        return f"{self._where} {values}: {self.cause.value}"

    @property
    def without_values(self) -> str:
        """The same without numbers, for inputs that clients sent and that must not be logged."""
        amount = f"{self.difference.amount} in a batch of {self.batch_rows} rows from what it is alone"
        return f"{self._where} {amount}: {self.cause.value}"

    @property
    def _where(self) -> str:
        location = self.difference.location
        return f'{f"{location} of " if location else ""}output "{self.output}"'


def find_mismatch(
    signature: ModelSignature,
    run: Run,
    *,
    inputs: Tensors,
    outputs: Mapping[str, Array],
    alone: Mapping[str, Array],
    start: int,
    stop: int,
    typical: Profiles,
) -> Mismatch | None:
    """Compare the rows from ``start`` to ``stop`` of a batch with ``alone``; return any mismatch.

    ``inputs`` and ``outputs`` are those of the whole batch. Exceptions of ``run`` propagate.
    """
    axes = {spec.name: spec.batch_axis for spec in signature.outputs}
    for name, answer in alone.items():
        found = difference(answer, take_rows(outputs[name], axes[name], start, stop), typical.get(name))
        if found is not None:
            return _MismatchAnalysis(signature, run, inputs, outputs, start, stop).explain(
                name, answer, found, typical.get(name)
            )
    return None


@dataclass(frozen=True, slots=True)
class _MismatchAnalysis:
    """Finds the cause of a mismatch by further runs."""

    signature: ModelSignature
    run: Run
    inputs: Tensors
    outputs: Mapping[str, Array]
    start: int
    stop: int

    def explain(self, name: str, alone: Array, found: Difference, typical: Profile | None) -> Mismatch:
        rows = self._rows
        axis = next(spec.batch_axis for spec in self.signature.outputs if spec.name == name)
        batched = take_rows(self.outputs[name], axis, self.start, self.stop)
        copies = self.run(self._batch_of_copies(rows))[name]
        if difference(take_rows(copies, axis, self.start, self.stop), batched, typical) is not None:
            return Mismatch(name, found, Cause.OTHER_ROWS, rows)
        if self._is_ill_conditioned(name, alone, found, typical):
            return Mismatch(name, found, Cause.NOISE, rows)
        chosen = not is_float(alone) and self._has_floats and alone.shape == batched.shape
        return Mismatch(name, found, Cause.ROUNDING if chosen else Cause.SIZE, rows)

    @property
    def _rows(self) -> int:
        for name, array in self.inputs.items():
            axis = self.signature.input(name).batch_axis
            if axis is not None:
                return int(array.shape[axis])
        raise AssertionError

    @property
    def _has_floats(self) -> bool:
        specs = (*self.signature.inputs, *self.signature.outputs)
        return any(spec.datatype.numpy.kind not in "biuO" for spec in specs)

    def _batch_of_copies(self, rows: int) -> dict[str, Array]:
        """Return the batch with every other row replaced by copies of the rows in question."""
        places = [self.start + (row - self.start) % (self.stop - self.start) for row in range(rows)]
        return {
            name: array if (axis := self.signature.input(name).batch_axis) is None else np.take(array, places, axis)
            for name, array in self.inputs.items()
        }

    def _is_ill_conditioned(self, name: str, alone: Array, found: Difference, typical: Profile | None) -> bool:
        for seed in range(_PERTURBED_RUNS):
            perturbed = self._perturbed(seed)
            if perturbed is None:
                return False
            moved = difference(alone, self.run(perturbed)[name], typical)
            if moved is not None and (not is_float(alone) or moved.relative * _NOISE_FACTOR >= found.relative):
                return True
        return False

    def _perturbed(self, seed: int) -> dict[str, Array] | None:
        """Return the rows alone with the last bits of their floats changed, None if they have no floats."""
        random = np.random.default_rng(seed)
        perturbed: dict[str, Array] = {}
        changed = False
        for name, array in self.inputs.items():
            axis = self.signature.input(name).batch_axis
            own = perturbed[name] = take_rows(array, axis, self.start, self.stop)
            if axis is not None and is_float(own):
                step = max(_PERTURBATION, 2.0 * float(np.finfo(np.float16).eps) if own.dtype.itemsize == 2 else 0.0)
                signs = random.choice((-1.0, 1.0), own.shape)
                with np.errstate(over="ignore"):
                    perturbed[name] = (np.asarray(own, np.float64) * (1 + step * signs)).astype(own.dtype)
                changed = True
        return perturbed if changed else None

"""Whether a row's answer in a batch is the one that it has alone. Pure.

Integers, booleans and text must be equal. Floats may differ by what adding up in another order explains, element by
element: each element is held against its own size and against what stands at its place in the answers of other rows,
never against the largest element of the whole output, which may be pixels beside a score.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]

#: How large each element of an answer usually is, relative to the largest one of the answer.
Profile = NDArray[np.float64]

#: How far elements may differ relative to what is usual at their place, by type. Half precision keeps 11 bits of a
#: number and bfloat16 8; matrices are added up in FP32 and more, but rounded after each operator.
_TOLERANCE = {np.dtype(np.float16): 2e-2, np.dtype(ml_dtypes.bfloat16): 1e-1}
_TOLERANCE_OF_FLOATS = 2e-4

#: How far they may differ relative to the largest element of the output: what is left where large numbers cancel.
_CANCELLED = 2e-6
_CANCELLED_IN_HALF = 2e-3


@dataclass(frozen=True, slots=True)
class Difference:
    """The first element in which two answers differ. ``relative`` is inf for other shapes and for what is no float."""

    index: tuple[int, ...]
    alone: str
    batched: str
    relative: float = np.inf

    @property
    def place(self) -> str:
        """Which element it is; empty for an output of a single one, or where it is the shapes that differ."""
        return f"element {list(self.index)}" if self.index else ""

    @property
    def amount(self) -> str:
        """By how much they differ, without a value of either."""
        if np.isinf(self.relative):
            return "differs"
        # Beside an answer of nearly nothing, any other is many times as large.
        return f"differs by {self.relative:.1%}" if self.relative <= 1 else "differs by more than 100 %"


def is_float(array: Array) -> bool:
    """Whether ``array`` has floating-point elements, of whatever width."""
    return array.dtype.kind == "f" or array.dtype == ml_dtypes.bfloat16


def profile(answers: Sequence[Array]) -> Profile | None:
    """Return how large each element usually is beside the largest one, from answers of one shape; None if unknown.

    It is the median, so that a few rows of other magnitudes do not make differences in the others look small.
    """
    shapes = {answer.shape for answer in answers}
    if len(shapes) != 1 or not is_float(answers[0]) or answers[0].size == 0:
        return None
    sizes = np.abs(np.asarray(np.stack(answers), np.float64))
    sizes = np.where(np.isfinite(sizes), sizes, 0.0).reshape(len(answers), -1)
    largest = sizes.max(axis=1, keepdims=True)
    relative = np.divide(sizes, largest, out=np.zeros_like(sizes), where=largest > 0)
    return np.asarray(np.median(relative, axis=0).reshape(answers[0].shape))


def difference(alone: Array, batched: Array, usual: Profile | None = None) -> Difference | None:
    """Return how ``batched`` differs from ``alone``, None if it does not; ``usual`` is from `profile`."""
    if alone.shape != batched.shape:
        return Difference((), f"of shape {list(alone.shape)}", f"of shape {list(batched.shape)}")
    if alone.size == 0:
        return None
    if not is_float(alone):
        unequal = np.asarray(alone != batched)
        return _first(alone, batched, unequal, None) if unequal.any() else None
    return _difference_of_floats(alone, batched, usual)


def _difference_of_floats(alone: Array, batched: Array, usual: Profile | None) -> Difference | None:
    # Equal bits are the rule where nothing is wrong, and quickly seen.
    if alone.tobytes() == batched.tobytes():
        return None
    a, b = np.asarray(alone, np.float64), np.asarray(batched, np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.where(finite, np.abs(a - b), 0.0)
        sizes = np.where(finite, np.abs(a), 0.0)
        if usual is not None and usual.shape == sizes.shape:
            sizes = np.maximum(sizes, usual * sizes.max(initial=0.0))
        half = alone.dtype in _TOLERANCE
        allowed = _TOLERANCE.get(alone.dtype, _TOLERANCE_OF_FLOATS) * sizes
        allowed += (_CANCELLED_IN_HALF if half else _CANCELLED) * sizes.max(initial=0.0) + 1e-30
        unequal = (apart > allowed) | (~finite & ~((a == b) | (np.isnan(a) & np.isnan(b))))
        if not unequal.any():
            return None
        return _first(alone, batched, unequal, np.where(finite, apart / np.maximum(sizes, 1e-30), np.inf))


def _first(alone: Array, batched: Array, unequal: NDArray[np.bool_], relative: Array | None) -> Difference:
    # The worst one tells most.
    place = int(np.argmax(unequal if relative is None else np.where(unequal, relative, -1.0)))
    index = np.unravel_index(place, alone.shape)
    size = np.inf if relative is None else float(relative.ravel()[place])
    return Difference(tuple(map(int, index)), _shown(alone[index]), _shown(batched[index]), size)


def _shown(element: object) -> str:
    if isinstance(element, bytes):
        return repr(element.decode(errors="replace")[:40])
    return f"{element:.6g}" if isinstance(element, float | np.floating) else str(element)


def take_rows(array: Array, axis: int | None, start: int, stop: int) -> Array:
    """Return a view of the rows from ``start`` to ``stop``; all of it if it has no batch axis."""
    return array if axis is None else array[(*(slice(None),) * axis, slice(start, stop))]

"""Search for inputs that a model accepts: sizes of open dimensions, integer ranges, kinds of strings."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from inferd.dtypes import BYTES
from inferd.runtime.batch_axes.synthetic_inputs import SyntheticInputs, single_rows
from inferd.runtime.resources import resident_bytes
from inferd.runtime.run_timeout import TrialTimeoutError
from inferd.runtime.signature import Array, ModelSignature, Tensors, TensorSpec

#: Runs the model and returns all outputs by name.
Run = Callable[[Tensors], Mapping[str, Array]]

#: Sizes to try for open dimensions other than the batch axis, and the increment from one dimension to the next.
#: Convolutions need a minimum size; some models need equal lengths, some need different ones.
_OPEN_SIZES = ((8, 0), (32, 0), (1, 0), (5, 2), (224, 0), (64, 0), (16, 0))

#: Upper bounds of integers to try in turn, and steps of the bisection after the first that fails.
_LARGEST = (3, 15, 127, 1023, 8191, 49_999)
_BISECTIONS = 4

#: A value that makes a run this much slower or larger is taken to be a size, and is not raised further.
_MUCH_SLOWER = 10.0
_SLOW_S = 0.05
_LARGE_BYTES = 64 * 2**20

_log = logging.getLogger("inferd.runtime")


@dataclass(frozen=True, kw_only=True, slots=True)
class Hints:
    """The user's hints: input ``shapes``, batch axis included, and ``examples``, which are requests."""

    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    examples: Sequence[Tensors] = ()


def find_inputs(
    signature: ModelSignature, run: Run, hints: Hints, clock: Callable[[], float] = time.monotonic
) -> SyntheticInputs | None:
    """Return inputs on which the model runs, None if none were found."""
    found = _first_accepted(signature, run, hints)
    return found if found is None or found.examples else _with_widest_bounds(found, run, clock)


def _first_accepted(signature: ModelSignature, run: Run, hints: Hints) -> SyntheticInputs | None:
    """Return the first inputs on which the model runs, preferably without empty outputs."""
    second_best = None
    for inputs in _candidates(signature, hints):
        try:
            outputs = _outputs_or_none(inputs, run)
        except TrialTimeoutError:
            # Other sizes would take about as long.
            break
        if outputs is None:
            continue
        if all(array.size for array in outputs.values()):
            return inputs
        second_best = second_best or inputs
    return second_best


def _candidates(signature: ModelSignature, hints: Hints) -> Iterator[SyntheticInputs]:
    has_integers = any(spec.datatype.numpy.kind in "iu" for spec in signature.inputs)
    has_texts = any(spec.datatype is BYTES for spec in signature.inputs)
    seen: list[Mapping[str, tuple[int, ...]]] = []
    for size, step in _OPEN_SIZES:
        for examples in _stackable_groups(signature, hints.examples) or [()]:
            shapes = _shapes(signature, hints, examples, size, step)
            if shapes in seen and not examples:
                continue
            seen.append(shapes)
            for largest in (1, 0) if has_integers else (1,):
                bounds = {spec.name: (0, largest) for spec in signature.inputs if spec.datatype.numpy.kind in "iu"}
                for numeric in (False, True) if has_texts else (False,):
                    yield SyntheticInputs(
                        signature=signature, shapes=shapes, bounds=bounds, numeric_texts=numeric, examples=examples
                    )


def example_rows(
    signature: ModelSignature, examples: Sequence[Tensors], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Tensors, ...]:
    """Return the rows of ``examples`` that have ``shapes`` and can be stacked, empty if there are none."""
    for group in _stackable_groups(signature, examples):
        if all(array.shape == shapes.get(name) for name, array in group[0].items()):
            return group
    return ()


def _stackable_groups(signature: ModelSignature, examples: Sequence[Tensors]) -> list[tuple[Tensors, ...]]:
    """Group the rows of ``examples`` by what can be stacked, the largest group first."""
    groups: dict[object, list[Tensors]] = {}
    for request in examples:
        for row in single_rows(signature, request):
            groups.setdefault(_stack_key(signature, row), []).append(row)
    return [tuple(group) for group in sorted(groups.values(), key=len, reverse=True)]


def _stack_key(signature: ModelSignature, row: Tensors) -> object:
    """Return a key equal for rows that can be stacked; examples need not have all inputs."""
    axes = {spec.name: spec.batch_axis for spec in signature.inputs}
    return tuple(
        (name, array.shape, None if axes[name] is not None else repr(array.tolist()))
        for name, array in sorted(row.items())
    )


def _shapes(
    signature: ModelSignature, hints: Hints, examples: Sequence[Tensors], size: int, step: int
) -> dict[str, tuple[int, ...]]:
    given = {name: tuple(shape) for name, shape in hints.shapes.items()}
    if examples:
        given |= {name: array.shape for name, array in examples[0].items()}
    sizes: dict[str, int] = {}
    for spec in signature.inputs:
        for dimension, known in zip(spec.shape, given.get(spec.name, ()), strict=False):
            if isinstance(dimension, str):
                sizes.setdefault(dimension, known)
    return {
        spec.name: _with_one_row(spec, given.get(spec.name) or _filled_shape(spec, sizes, size, step))
        for spec in signature.inputs
    }


def _filled_shape(spec: TensorSpec, sizes: dict[str, int], size: int, step: int) -> tuple[int, ...]:
    return tuple(
        dimension
        if isinstance(dimension, int)
        else sizes.setdefault(dimension or f"{spec.name}.{axis}", size + step * len(sizes))
        for axis, dimension in enumerate(spec.shape)
    )


def _with_one_row(spec: TensorSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if axis == spec.batch_axis else size for axis, size in enumerate(shape))


def _outputs_or_none(inputs: SyntheticInputs, run: Run) -> Mapping[str, Array] | None:
    try:
        return run(inputs.row(0))
    except TrialTimeoutError:
        raise
    except Exception as error:  # noqa: BLE001  (ONNX Runtime raises many types)
        _log.debug("the model does not run with %s: %s", inputs.shapes, error)
        return None


def is_accepted(inputs: SyntheticInputs, run: Run) -> bool:
    """Whether the model runs on a row of ``inputs``, and in time."""
    with suppress(TrialTimeoutError):
        return _outputs_or_none(inputs, run) is not None
    return False


def _with_widest_bounds(inputs: SyntheticInputs, run: Run, clock: Callable[[], float]) -> SyntheticInputs:
    """Widen the integer ranges as far as the model accepts in a few runs."""
    integers = [
        spec for spec in inputs.signature.inputs if inputs.bounds.get(spec.name, (0, 0))[1] > 0 and not spec.optional
    ]
    if not integers:
        return inputs
    started_at = clock()
    _outputs_or_none(inputs, run)
    usual_s = max(clock() - started_at, _SLOW_S / _MUCH_SLOWER)
    for spec in integers:
        inputs = _with_widest_input_bounds(inputs, spec, run, clock, usual_s)
    return inputs


def _with_widest_input_bounds(
    inputs: SyntheticInputs, spec: TensorSpec, run: Run, clock: Callable[[], float], usual_s: float
) -> SyntheticInputs:
    def accepts(value: int) -> bool:
        row = inputs.row(0)
        row[spec.name] = np.full_like(row[spec.name], value)
        before, started_at = resident_bytes(), clock()
        try:
            run(row)
        except Exception:  # noqa: BLE001  (see above)
            return False
        return clock() - started_at <= usual_s * _MUCH_SLOWER and resident_bytes() - before <= _LARGE_BYTES

    low, high = inputs.bounds[spec.name]
    rejected = None
    limits = np.iinfo(spec.datatype.numpy.str)
    for largest in _LARGEST:
        if largest > limits.max or not accepts(largest):
            rejected = min(largest, int(limits.max))
            break
        high = largest
    for _ in range(_BISECTIONS if rejected is not None else 0):
        assert rejected is not None
        middle = (high + rejected) // 2
        if middle > high and accepts(middle):
            high = middle
        else:
            rejected = middle
    if limits.min < 0 and high > 1 and accepts(-high):
        low = -high
    return inputs.bounded(spec.name, low, high)


def input_variants(found: SyntheticInputs, run: Run, hints: Hints) -> Iterator[SyntheticInputs]:
    """Yield inputs that run, with other values of shared inputs and other sizes of open dimensions than ``found``."""
    signature = found.signature
    has_shared = any(spec.batch_axis is None for spec in signature.inputs)
    if found.examples:
        groups = _stackable_groups(signature, hints.examples)
        others = [
            replace(found, examples=group, shapes=_shapes(signature, hints, group, 1, 0)) for group in groups[1:3]
        ]
    else:
        others = [replace(found, shared_draw=draw) for draw in ((2, 5) if has_shared else ())]
        tried = [found.shapes]
        for size, step in ((3, 0), (5, 2), (1, 0)):
            shapes = _shapes(signature, hints, (), size, step)
            if shapes not in tried:
                tried.append(shapes)
                others.append(replace(found, shapes=shapes, shared_draw=1 if has_shared else 0))
    yield from (inputs for inputs in others if is_accepted(inputs, run))

"""Synthetic requests for verification and warm-up: pseudo-random rows that differ from each other.

Seeds are fixed, so a model is always tried with the same numbers. Floats are drawn from several distributions, because
a model may treat pixels of 0 to 255 unlike fractions, and negative numbers unlike positive ones; integers from a range
that the model accepts; strings have several words and lengths.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from inferd.dtypes import BYTES
from inferd.runtime.batch_axes.row_comparison import take_rows
from inferd.runtime.signature import Array, ModelSignature, Tensors, TensorSpec
from inferd.runtime.stacking import stack

_SEED = 20_260_101

_Draw = Callable[[np.random.Generator, tuple[int, ...]], "np.typing.NDArray[np.float64]"]

#: Distributions of floats, one for each row in turn.
_FLOATS: Sequence[_Draw] = (
    lambda random, shape: random.normal(size=shape),
    lambda random, shape: random.random(shape),
    lambda random, shape: random.integers(0, 256, shape).astype(np.float64),
    lambda random, shape: random.normal(size=shape) * 10.0 ** random.integers(-3, 4, shape),
    lambda random, shape: -10 * random.random(shape) - 1,
    lambda random, shape: random.normal(size=shape) * 1e-3,
    lambda random, shape: random.normal(size=shape) * 1e3,
    lambda random, shape: random.normal(size=shape) * (random.random(shape) < 0.5),
    lambda random, shape: 10 * random.random(shape) + 1,
    lambda _, shape: np.zeros(shape),
    lambda random, shape: random.normal(size=shape) * 1e6,
)

#: The largest FP16 is 65,504; a network overflows long before.
_LARGEST_HALF = 1000.0

_WORDS = ("a", "model", "reads", "Words", "of", "SEVERAL", "lengths", "été", "42", "don't", "x-ray", "incomprehensible")
_WORDS_PER_STRING = (1, 4, 0, 9, 2, 1, 6, 25)

#: Strings drawn for one row; a larger row repeats them.
_MOST_STRINGS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticInputs:
    """Generates requests of fixed shapes and value ranges.

    ``shapes`` has a size for every dimension of each input, 1 along its batch axis. ``bounds`` are the smallest and the
    largest integer of each integer input. ``shared_draw`` selects the values of shared inputs; 0 omits optional inputs.
    ``numeric_texts``: strings are numbers. ``examples`` are the user's: one row each, of some or all inputs, with
    equal shapes and equal shared inputs. If there are any, rows are derived from them.
    """

    signature: ModelSignature
    shapes: Mapping[str, tuple[int, ...]]
    bounds: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    shared_draw: int = 0
    numeric_texts: bool = False
    examples: tuple[Tensors, ...] = ()

    def row(self, number: int) -> dict[str, Array]:
        """Return a request of one row, a different one for each ``number``; shared inputs are always the same."""
        example = self._example(number)
        return {
            spec.name: example[spec.name] if spec.name in example else self._tensor(spec, position, number)
            for position, spec in enumerate(self.signature.inputs)
            if spec.name in example or not spec.optional or self.shared_draw
        }

    def rows(self, count: int) -> dict[str, Array]:
        """Return one request of ``count`` rows known to run; without batch axes always the same request."""
        if not self.signature.batchable:
            return self.row(0)
        known = [self.row(number) for number in range(max(len(self.examples), 1))]
        return stack(self.signature, [known[number % len(known)] for number in range(count)])

    def bounded(self, name: str, low: int, high: int) -> "SyntheticInputs":
        """Return a copy with other bounds for the integers of input ``name``."""
        return replace(self, bounds={**self.bounds, name: (low, high)})

    def _tensor(self, spec: TensorSpec, position: int, number: int) -> Array:
        is_shared = spec.batch_axis is None
        draw = self.shared_draw if is_shared else number
        shape = self.shapes[spec.name]
        if is_shared and draw == 0:
            return _ones(spec, shape, self.bounds)
        random = np.random.default_rng((_SEED, position, int(is_shared), draw))
        if spec.datatype is BYTES:
            return _strings(random, shape, draw + position, numeric=self.numeric_texts)
        kind = spec.datatype.numpy.kind
        if kind == "b":
            return random.random(shape) < (0.5, 0.9, 0.1)[(draw + position) % 3]
        if kind in "iu":
            low, high = self.bounds.get(spec.name, (0, 1))
            return _integers(random, shape, draw, low, high).astype(spec.datatype.numpy)
        drawn = _FLOATS[(draw + position) % len(_FLOATS)](random, shape)
        if spec.datatype.numpy == np.float16:
            drawn = np.clip(drawn, -_LARGEST_HALF, _LARGEST_HALF)
        return np.asarray(drawn).astype(spec.datatype.numpy)

    def _example(self, number: int) -> Mapping[str, Array]:
        """Return an example, or a random variation of one beyond their number; empty without examples."""
        if number < len(self.examples) or not self.examples:
            return self.examples[number] if self.examples else {}
        random = np.random.default_rng((_SEED, number))
        axes = {spec.name: spec.batch_axis for spec in self.signature.inputs}
        return {
            name: array if axes[name] is None else _variation(random, array, [each[name] for each in self.examples])
            for name, array in self.examples[number % len(self.examples)].items()
        }


def _ones(spec: TensorSpec, shape: tuple[int, ...], bounds: Mapping[str, tuple[int, int]]) -> Array:
    if spec.datatype is BYTES:
        return np.full(shape, b"1", object)
    largest = bounds.get(spec.name, (0, 1))[1]
    return np.full(shape, min(1, largest), spec.datatype.numpy)


def _integers(random: np.random.Generator, shape: tuple[int, ...], draw: int, low: int, high: int) -> Array:
    match draw % 5:
        case 0:
            return random.integers(low, high, shape, endpoint=True)
        case 1:
            return random.integers(0, min(1, high), shape, endpoint=True)
        case 2:
            return random.integers(max(low, high - 3), high, shape, endpoint=True)
        case 3:
            return random.integers(max(low, 0), min(high, 10), shape, endpoint=True)
    return np.full(shape, random.integers(low, high, endpoint=True))


def _strings(random: np.random.Generator, shape: tuple[int, ...], draw: int, *, numeric: bool) -> Array:
    elements = int(np.prod(shape))
    strings = np.empty(elements, object)
    some = []
    for number in range(min(elements, _MOST_STRINGS)):
        if numeric:
            some.append(b"%d" % random.integers(-100, 1000) if draw % 2 else b"%.3f" % random.normal())
            continue
        words = _WORDS_PER_STRING[(draw + number) % len(_WORDS_PER_STRING)]
        some.append(" ".join(random.choice(_WORDS, words)).encode())
    for start in range(0, elements, _MOST_STRINGS):
        strings[start : start + _MOST_STRINGS] = some[: min(_MOST_STRINGS, elements - start)]
    return strings.reshape(shape)


def _variation(random: np.random.Generator, array: Array, seen: Sequence[Array]) -> Array:
    """Return a variation of ``array``: integers and strings drawn from ``seen``, floats scaled by a random factor."""
    pool = np.concatenate([each.ravel() for each in seen])
    varied = random.choice(pool, array.shape) if pool.size else array.copy()
    if array.dtype.kind in "iubO":
        return np.asarray(varied, array.dtype)
    return (np.asarray(array, np.float64) * random.uniform(0.5, 1.5, array.shape)).astype(array.dtype)


def single_rows(signature: ModelSignature, request: Tensors) -> list[dict[str, Array]]:
    """Split a request into requests of one row each; without batch axes it stays whole."""
    axes = {spec.name: spec.batch_axis for spec in signature.inputs}
    counts = [request[name].shape[axis] for name, axis in axes.items() if axis is not None and name in request]
    if not counts:
        return [dict(request)]
    return [
        {name: take_rows(array, axes[name], row, row + 1) for name, array in request.items()}
        for row in range(min(counts))
    ]

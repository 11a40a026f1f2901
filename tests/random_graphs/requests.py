"""Random requests for a random graph."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import helper

from tests.random_graphs.graph import BATCH, BOOL, LENGTH, STRING, WORDS, Input

Arrays = dict[str, np.ndarray]

#: Magnitudes of numbers, the usual ones more often.
_SCALES = (1e-6, 1e-2, 0.3, 1.0, 1.0, 1.0, 3.0, 10.0, 100.0, 2000.0)


@dataclass(frozen=True, slots=True)
class Scene:
    """What requests of a batch must share: the dynamic size, and shared inputs."""

    length: int
    shared: Mapping[str, np.ndarray]


def draw_scene(inputs: tuple[Input, ...], rng: np.random.Generator, least_length: int) -> Scene:
    """Draw what several requests share."""
    length = int(rng.integers(least_length, 7))
    shared = {spec.value.name: _array(spec, _sizes(spec, 1, length), rng, 1.0) for spec in inputs if spec.shared}
    return Scene(length, shared)


def draw_request(inputs: tuple[Input, ...], rng: np.random.Generator, rows: int, scene: Scene) -> Arrays:
    """Draw a request of ``rows`` rows: mostly of one magnitude, sometimes with one row of another."""
    request = {}
    for spec in inputs:
        if spec.shared:
            request[spec.value.name] = scene.shared[spec.value.name]
            continue
        sizes = _sizes(spec, rows, scene.length)
        array = _array(spec, sizes, rng, rng.choice(_SCALES))
        if rng.random() < 0.3:
            index = (slice(None),) * spec.value.axis + (int(rng.integers(rows)),)
            array[index] = _array(spec, sizes, rng, rng.choice(_SCALES))[index]
        request[spec.value.name] = array
    return request


def _sizes(spec: Input, rows: int, length: int) -> tuple[int, ...]:
    open_sizes = {BATCH: rows, LENGTH: length}
    return tuple(size if isinstance(size, int) else open_sizes[size] for size in spec.value.shape)


def _array(spec: Input, sizes: tuple[int, ...], rng: np.random.Generator, scale: float) -> np.ndarray:
    kind = spec.value.kind
    if kind == STRING:
        return _strings(sizes, rng)
    if kind == BOOL:
        return np.asarray(rng.random(sizes) < rng.choice([0.5, 0.5, 0.1, 0.9]))
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    if spec.vocabulary:
        return np.asarray(rng.integers(0, spec.vocabulary, sizes), dtype)
    if np.issubdtype(dtype, np.integer):
        return np.asarray(rng.integers(-int(scale) - 3, int(scale) + 4, sizes), dtype)
    return np.asarray(_numbers(sizes, rng) * scale, dtype)


def _numbers(sizes: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    way = rng.random()
    if way < 0.04:
        return np.zeros(sizes)
    if way < 0.08:
        return np.ones(sizes)
    if way < 0.12:
        return np.round(rng.normal(size=sizes) * 2)
    if way < 0.2:
        return np.abs(rng.normal(size=sizes)) * rng.choice([-1, 1])
    return rng.normal(size=sizes) * rng.choice([1, 1, 0], sizes, p=[0.45, 0.45, 0.1])


def _strings(sizes: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    array = np.empty(sizes, object)
    for index in np.ndindex(*sizes):
        count = int(rng.choice([0, 1, 2, 3, 5], p=[0.05, 0.55, 0.2, 0.15, 0.05]))
        array[index] = " ".join(rng.choice(WORDS, count))
    return array

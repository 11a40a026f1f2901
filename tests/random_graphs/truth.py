"""Determine by runs whether a model is safe to batch: whether answers depend on other requests of the batch.

The result is evidence, not proof: "safe" means that no difference was found.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import onnxruntime

from tests.random_graphs.model import RandomModel, open_plain, run_plain
from tests.random_graphs.requests import Arrays
from tests.random_graphs.rounding import Nudged, without_rounding

Close = Callable[[np.ndarray, np.ndarray], bool]

_MOST_ROWS = 4
_PASSES = 8
_GROUP_SIZES = (2, 16)
#: The scene of each request. Only requests of one scene can share a batch.
_SCENES = (0,) * 40 + (1,) * 16 + (2,) * 8


@dataclass(frozen=True, slots=True)
class Truth:
    """Whether a model is safe to batch, and if not, the difference."""

    safe: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Alone:
    """A request that ran alone."""

    request: Arrays
    rows: int
    outputs: list[np.ndarray]


def close_enough(alone: np.ndarray, batched: np.ndarray) -> bool:
    """Compare two answers as callers would: numbers by a tolerance, everything else exactly."""
    if alone.dtype != batched.dtype or alone.shape != batched.shape:
        return False
    if not np.issubdtype(alone.dtype, np.floating):
        return np.array_equal(alone, batched)
    left, right = alone.astype(np.float64), batched.astype(np.float64)
    largest = float(np.abs(left[np.isfinite(left)]).max(initial=0))
    return np.allclose(right, left, rtol=1e-3, atol=1e-3 * min(1.0, largest) + 1e-6, equal_nan=True)


def truth(model: RandomModel, seed: int, close: Close = close_enough) -> Truth:
    """Run 64 requests alone and in many groups, and return whether any answer differs.

    A difference counts only if it is larger than rounding.
    """
    rng = np.random.default_rng(seed)
    trial = _Trial(model, close)
    scenes = trial.run_alone(rng)
    for _ in range(_PASSES):
        for members in scenes:
            for group in _grouped(members, rng):
                reason = trial.difference(group)
                if reason:
                    return Truth(safe=False, reason=reason)
    return Truth(safe=True)


def _grouped(members: list[_Alone], rng: np.random.Generator) -> Iterator[list[_Alone]]:
    order = [members[index] for index in rng.permutation(len(members))]
    while order:
        size = int(rng.integers(_GROUP_SIZES[0], _GROUP_SIZES[1] + 1))
        group, order = order[:size], order[size:]
        if len(group) > 1:
            yield group


class _Trial:
    def __init__(self, model: RandomModel, close: Close) -> None:
        self._model = model
        self._close = close
        self._session: onnxruntime.InferenceSession = open_plain(model.model)
        self._nudged = Nudged(model.model)

    def run_alone(self, rng: np.random.Generator) -> list[list[_Alone]]:
        """Run the requests of each scene one by one; requests that fail alone are skipped."""
        scenes = [self._model.scene(rng) for _ in range(max(_SCENES) + 1)]
        members: list[list[_Alone]] = [[] for _ in scenes]
        for number in _SCENES:
            rows = int(rng.integers(1, _MOST_ROWS + 1))
            request = self._model.request(rng, rows, scenes[number])
            outputs = run_plain(self._session, request)
            if outputs is not None:
                members[number].append(_Alone(request, rows, outputs))
        return members

    def difference(self, group: list[_Alone]) -> str:
        """Run ``group`` as a batch, and describe the difference, if any."""
        outputs = run_plain(self._session, self._stacked(group))
        if outputs is None:
            return f"{len(group)} requests run alone but not together"
        for index, (name, axis) in enumerate(self._model.output_axes.items()):
            reason = self._difference_of_output(outputs[index], index, axis, group)
            if reason:
                return f"{name}: {reason}"
        return ""

    def _stacked(self, group: list[_Alone]) -> Arrays:
        first = group[0].request
        return {
            name: first[name] if axis is None else np.concatenate([each.request[name] for each in group], axis)
            for name, axis in self._model.input_axes.items()
        }

    def _difference_of_output(self, batched: np.ndarray, index: int, axis: int | None, group: list[_Alone]) -> str:
        total = sum(each.rows for each in group)
        if axis is not None and (batched.ndim <= axis or batched.shape[axis] != total):
            return f"{total} rows went in, and {list(batched.shape)} came out"
        places = pairwise(accumulate((each.rows for each in group), initial=0))
        for each, (start, stop) in zip(group, places, strict=True):
            part = batched if axis is None else batched[(*[slice(None)] * axis, slice(start, stop))]
            if not self._agree(each, index, part):
                return f"in rows {start} to {stop} of {total}: {self._shown(each.outputs[index], part)}"
        return ""

    def _agree(self, each: _Alone, index: int, part: np.ndarray) -> bool:
        alone = each.outputs[index]
        if self._close(alone, part):
            return True
        if alone.shape != part.shape or alone.dtype != part.dtype:
            return False
        nudged = [answer[index] for answer in self._nudged.answers(each.request)]
        return self._close(alone, without_rounding(alone, part, nudged))

    def _shown(self, alone: np.ndarray, part: np.ndarray) -> str:
        if alone.shape != part.shape or alone.dtype != part.dtype:
            return f"{part.dtype} {list(part.shape)}, alone {alone.dtype} {list(alone.shape)}"
        pairs = zip(alone.reshape(-1, 1), part.reshape(-1, 1), strict=True)
        off = [f"{right[0]} (alone {left[0]})" for left, right in pairs if not self._close(left, right)]
        return ", ".join(off[:3]) + (" …" if len(off) > 3 else "")

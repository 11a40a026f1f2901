"""Verifies while a model serves that requests get the same answers in a batch as alone.

From time to time one request of a batch runs again alone, and the answers are compared before any is sent. The first
batch of each size class is checked; after that, checks take at most a set share of the model's run time. When a check
is due, the first of the next batches with unusually large values is chosen, so that faults which only show for rare,
large values are found early.
"""

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from inferd.batching.ports import Clock, Session
from inferd.runtime.batch_axes.row_comparison import Cause, Mismatch, Profiles, find_mismatch, profile, take_rows
from inferd.runtime.signature import Array, ModelSignature, Tensors

#: A due check considers this many batches, or this fraction of those since the last check, whichever is less. A batch
#: is unusual if its largest value is this many times the average.
_MOST_CONSIDERED = 16
_CONSIDERED_PART = 8
_UNUSUAL = 2.0
#: Weight of a batch in the average of the largest values.
_WEIGHT = 0.1
#: The fraction of the share for regular checks; the rest is for first batches and for closer looks.
_REGULAR_PART = 0.8
#: Integers that floats were rounded to may differ in this share of the checks; fewer checks than this prove nothing.
_MOST_ROUNDED = 0.1
_MIN_CHECKS = 20


#: Runs the model: takes inputs, names of outputs and the time at which the run starts.
RunAt = Callable[[Tensors, Sequence[str], float], list[Array]]


class CheckSchedule:
    """Chooses the batches to check.

    Invariant: over time, checks take at most ``share`` of the run time passed to `is_due`, apart from the first batch
    of each size class and closer looks at differences. The lock is held for a few additions only. Any of the model's
    threads may call.
    """

    def __init__(self, share: float) -> None:
        self._share = share * _REGULAR_PART
        self._is_on = share > 0
        self._lock = threading.Lock()
        self._seen_sizes: set[int] = set()
        #: Run time and batches since the last check, the average time of a check, and batches left to consider.
        self._ran_s = 0.0
        self._batches = 0
        self._check_s = 0.0
        self._to_consider = 0
        self._usual_largest: float | None = None

    def is_due(self, inputs: Tensors, rows: int, run_s: float) -> bool:
        """Record a run of several ``rows`` that took ``run_s``; return whether to check it."""
        if not self._is_on:
            return False
        with self._lock:
            self._ran_s += run_s
            self._batches += 1
            size_class = rows.bit_length()
            if size_class not in self._seen_sizes:
                self._seen_sizes.add(size_class)
                return True
            if self._check_s > self._ran_s * self._share:
                return False
        return self._is_chosen(inputs)

    def _is_chosen(self, inputs: Tensors) -> bool:
        """Consider a batch while a check is due."""
        largest = _largest(inputs)
        with self._lock:
            usual = self._usual_largest
            self._usual_largest = largest if usual is None else usual + (largest - usual) * _WEIGHT
            if self._to_consider == 0:
                self._to_consider = max(1, min(self._batches // _CONSIDERED_PART, _MOST_CONSIDERED))
            self._to_consider -= 1
            chosen = self._to_consider == 0 or (usual is not None and largest > usual * _UNUSUAL)
            if chosen:
                self._to_consider = self._batches = 0
                self._ran_s = 0.0
            return chosen

    def checked(self, took_s: float) -> None:
        """Record how long a check took."""
        with self._lock:
            self._check_s = took_s if self._check_s == 0 else self._check_s + (took_s - self._check_s) * _WEIGHT


class SelfCheck:
    """Runs one request of a batch again alone, and compares; ``schedule`` chooses the batches.

    Any of the model's threads may call.
    """

    def __init__(self, *, session: Session, share: float, clock: Clock, seed: int = 0) -> None:
        self.schedule = CheckSchedule(share)
        self._session = session
        self._clock = clock
        self._random = random.Random(seed)  # noqa: S311  (not for security)
        self._lock = threading.Lock()
        self._checks = 0
        self._rounded = 0

    def compare(
        self, run_at: RunAt, inputs: Tensors, outputs: Mapping[str, Array], members: Sequence[int]
    ) -> tuple[Mismatch | None, float]:
        """Run one request of a batch again alone and compare.

        ``members`` are the rows of each request. Returns the mismatch, if any, and how long the single run took in
        seconds. Raises whatever ``run_at`` raises.
        """
        signature = self._session.signature
        bounds = list(pairwise(np.cumsum([0, *members]).tolist()))
        start, stop = bounds[self._member(signature, inputs, bounds)]
        names = tuple(outputs)

        def run(tensors: Tensors) -> dict[str, Array]:
            return dict(zip(names, run_at(tensors, names, self._clock()), strict=True))

        alone_inputs = {
            name: take_rows(array, signature.input(name).batch_axis, start, stop) for name, array in inputs.items()
        }
        started_at = self._clock()
        alone = run(alone_inputs)
        took_s = self._clock() - started_at
        mismatch = find_mismatch(
            signature,
            run,
            inputs=inputs,
            outputs=outputs,
            alone=alone,
            start=start,
            stop=stop,
            typical=_profiles(signature, outputs, bounds),
        )
        self.schedule.checked(took_s)
        return self._confirm(mismatch), took_s

    def _confirm(self, mismatch: Mismatch | None) -> Mismatch | None:
        with self._lock:
            self._checks += 1
            if mismatch is None or mismatch.cause is Cause.NOISE:
                return None
            if mismatch.cause is not Cause.ROUNDING:
                return mismatch
            self._rounded += 1
            often = self._checks >= _MIN_CHECKS and self._rounded > self._checks * _MOST_ROUNDED
            return mismatch if often else None

    def _member(self, signature: ModelSignature, inputs: Tensors, bounds: Sequence[tuple[int, int]]) -> int:
        """Choose a request: in turn the one with the largest values, the one with the smallest, and a random one.

        Large values may get wrong answers themselves, or cause wrong answers for others.
        """
        turn = self._checks % 3
        sizes = _sizes_of_rows(signature, inputs) if turn < 2 else None
        if sizes is None:
            return self._random.randrange(len(bounds))
        row = int(sizes.argmax() if turn == 0 else sizes.argmin())
        return next(member for member, (_, stop) in enumerate(bounds) if row < stop)


def _largest(inputs: Tensors) -> float:
    """Return the largest number in ``inputs``, negative ones by their size."""
    largest = 0.0
    for array in inputs.values():
        if array.dtype.kind in "iuf" and array.size:
            largest = max(largest, float(array.max()), -float(array.min()))
    return largest


def _sizes_of_rows(signature: ModelSignature, inputs: Tensors) -> Array | None:
    """Return the largest number in each row, None if there are no numbers."""
    found: Array | None = None
    for name, array in inputs.items():
        axis = signature.input(name).batch_axis
        if axis is None or array.dtype.kind not in "iuf" or array.size == 0:
            continue
        others = tuple(at for at in range(array.ndim) if at != axis)
        sizes = np.maximum(array.max(axis=others), -array.min(axis=others).astype(np.float64))
        found = sizes if found is None else np.maximum(found, sizes)
    return found


def _profiles(signature: ModelSignature, outputs: Mapping[str, Array], bounds: Sequence[tuple[int, int]]) -> Profiles:
    axes = {spec.name: spec.batch_axis for spec in signature.outputs}
    return {
        name: None
        if axes[name] is None
        else profile([take_rows(array, axes[name], start, stop) for start, stop in bounds])
        for name, array in outputs.items()
    }

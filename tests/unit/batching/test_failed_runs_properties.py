"""Each request of a batch gets one outcome of its own, whatever its runs do."""

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.batching.request import FailedRunError, InferenceResult
from inferd.errors import DeadlineExceededError, ModelUnavailableError, OutOfMemoryError
from inferd.runtime.errors import RunFailedError
from tests.fakes import Caller, scale
from tests.unit.batching.executing import Model, x

_DEVICE = "CUDA failure 700: an illegal memory access was encountered ; GPU=0"
_EXPECTED = InferenceResult | FailedRunError | DeadlineExceededError | ModelUnavailableError | OutOfMemoryError
#: Far more than halving and bisecting a batch of a few dozen rows takes.
_MOST_RUNS = 600


class _Unreliable:
    """A model with memory for ``room`` rows; now and then a run fails, a caller leaves or a second passes."""

    def __init__(self, room: int, chance: random.Random, kinds: frozenset[str], **model: object) -> None:
        self._room, self._chance, self._kinds = room, chance, kinds
        self.callers: list[Caller] = []
        self.model = Model(self._compute, **model)

    def _happens(self, kind: str) -> bool:
        return kind in self._kinds and self._chance.random() < 0.1

    def _compute(self, inputs):
        assert len(self.model.session.runs) < _MOST_RUNS
        if self._happens("cancelled"):
            self._chance.choice(self.callers).request.reply.withdraw()
        if self._happens("slow"):
            self.model.clock.advance(1.0)
        if self._happens("device"):
            raise RunFailedError(RuntimeError(_DEVICE))
        if self._happens("fails") or (inputs["x"] < 0).any():
            raise RunFailedError(RuntimeError("no"))
        if len(inputs["x"]) > self._room or self._happens("full"):
            raise MemoryError
        return scale(inputs)


@settings(max_examples=150, deadline=None)
@given(
    room=st.sampled_from([0, 1, 2, 5, 100]),
    chunk_rows=st.sampled_from([1, 4, 8, 16]),
    rows=st.lists(st.integers(1, 3), min_size=1, max_size=12) | st.lists(st.integers(1, 40), min_size=1, max_size=1),
    seed=st.integers(0, 2**32),
    kinds=st.frozensets(st.sampled_from(["cancelled", "slow", "device", "fails", "full"])),
    idle_have_memory=st.booleans(),
)
def test_each_request_gets_its_own_outcome(room, chunk_rows, rows, seed, kinds, idle_have_memory):
    """With halved and bisected batches, pieces, checks, expired and cancelled callers in any order."""
    chance = random.Random(seed)
    unreliable = _Unreliable(room, chance, kinds, chunk_rows=chunk_rows, check_share=chance.choice([0.0, 1.0]))
    model, first = unreliable.model, 1
    model.idle_have_memory = int(idle_have_memory)
    for count in rows:
        values = np.arange(first, first + count) * chance.choice([1, 1, 1, -1])
        deadline = model.clock() + chance.choice([0.5, 3.0, 1e9])
        unreliable.callers.append(Caller(x=x(*values), deadline=deadline))
        first += count
    model.run(*unreliable.callers)
    model.poll_thread.run_soon()
    for caller in unreliable.callers:
        assert caller.request.reply.done()
        for outcome in caller.outcomes:
            assert isinstance(outcome, _EXPECTED), outcome
            if isinstance(outcome, InferenceResult):
                np.testing.assert_array_equal(outcome.outputs["y"], caller.request.inputs["x"])
        assert len(caller.outcomes) <= 1
    assert 1 <= model.memory.rows <= chunk_rows

"""Batched equals unbatched: however requests are stacked and split, each answer is that of the request alone."""

import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.batching.batcher import Batcher
from inferd.config.settings import BatchingSettings, InstanceRange, QueueSettings
from inferd.errors import InferenceFailedError
from tests.fakes import Caller, FakeClock, FakeSession, ManualPollThread, RecordingStats, scale
from tests.patience import PATIENCE_S

_OUTPUTS = st.lists(st.sampled_from(["y", "sum", "same"]), min_size=1, max_size=3, unique=True).map(tuple)


@st.composite
def _callers(draw):
    """Requests of several lengths and factors, which cannot all be stacked, and some that fail."""
    rows, length = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    factor = draw(st.sampled_from([1.0, 2.0]))
    values = st.lists(
        st.integers(-1 if draw(st.booleans()) else 0, 100), min_size=rows * length, max_size=rows * length
    )
    x = np.array(draw(values), dtype=np.float32).reshape(rows, length)
    return Caller(x=x, factor=factor, key=(length, factor), outputs=draw(_OUTPUTS), priority=draw(st.integers(1, 3)))


def _no_negatives(inputs):
    if (inputs["x"] < 0).any():
        raise RuntimeError("negative")
    return scale(inputs)


# Threads are started for each example, so its duration varies.
@settings(deadline=None)
@given(
    callers=st.lists(_callers(), max_size=12),
    max_batch_size=st.integers(1, 10),
    enabled=st.booleans(),
    instances=st.integers(1, 3) | st.just(InstanceRange(max=3)),
)
def test_each_answer_equals_single_run(callers, max_batch_size, enabled, instances):
    """For any requests, batch size and number of workers; and requests fail that fail alone."""
    session = FakeSession(_no_negatives)
    batcher = Batcher(
        name="m",
        session=session,
        queue=QueueSettings(),
        batching=BatchingSettings(enabled=enabled, max_batch_size=max_batch_size, instances=instances),
        clock=time.monotonic,
        max_run_s=60.0,
        poll_thread=ManualPollThread(FakeClock()),
        alarm=ManualPollThread(FakeClock()),
        stats=RecordingStats(),
    )
    for caller in callers:
        batcher.queue.submit([caller.request])
    batcher.start()
    assert batcher.stop(PATIENCE_S)
    for caller in callers:
        _assert_as_alone(caller)
    if enabled:
        assert all(rows <= max_batch_size for rows in session.runs)


def _assert_as_alone(caller):
    try:
        expected = _no_negatives(caller.request.inputs)
    except RuntimeError:
        assert isinstance(caller.error, InferenceFailedError)
        return
    outputs = caller.result.outputs
    assert tuple(outputs) == caller.request.outputs
    for name, array in outputs.items():
        np.testing.assert_array_equal(array, expected[name])

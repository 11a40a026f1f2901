"""Instances that follow the load, on a virtual clock with runs of exact cost."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.simulation.costs import Cost, affine
from benchmarks.simulation.instances import Machine, day, step
from inferd.batching.instances import IDLE, LOAD, NO_GAIN, Instances
from inferd.batching.request import Batch
from tests.fakes import Caller

_RUN = Cost(exact=affine(0.05, 0.0))
_BATCHES = Cost(exact=affine(0.005, 0.0005))
_SHARED_CORES = Machine(cores=2, threads=2)


def test_instances_rise_and_fall_once_a_day():
    """From 1 to 4 in the morning and back in the evening, but for a few changes at dusk and dawn."""
    changes = day(Cost(exact=affine(0.4, 0.0)), seconds=3600, peak=2.6)
    counts = [change.count for _, change in changes]
    assert max(counts) == 4
    assert counts[-1] == 1
    assert len(counts) <= 8
    at_noon = [hour for hour, _ in changes if 7 < hour < 17]
    assert at_noon == []


def test_instances_hardly_change_when_the_load_is_restless():
    """Each shrinking that turns out to be too early makes the next one later."""
    noisy = Cost(exact=affine(0.4, 0.0), noise=0.2, stall_share=0.02)
    assert len(day(noisy, seconds=3600, peak=2.6, restlessness=0.3)) <= 24


@pytest.mark.parametrize(("cost", "max_rows"), [(_RUN, 1), (_BATCHES, 32)], ids=["unbatched", "batched"])
@pytest.mark.parametrize("seed", [0, 1])
def test_latency_after_a_step_is_soon_that_of_the_maximum(cost, max_rows, seed):
    """Ten runs after it, though nothing was known of further instances."""
    following = step(Machine(), cost, max_rows=max_rows, load=0.8, seed=seed)
    fixed = step(Machine(least=4), cost, max_rows=max_rows, load=0.8, seed=seed)
    assert following.p99(10, 40) <= 1.25 * fixed.p99(10, 40)
    assert following.failed(10, 40) <= fixed.failed(10, 40)
    assert following.changes[-1][1].count == 4


def test_gives_up_what_does_not_pay():
    """Where a run takes all cores, two take twice as long; and it is not tried again for long."""
    stepped = step(_SHARED_CORES, _RUN, max_rows=1, load=1.5)
    assert [(change.count, change.reason) for _, change in stepped.changes] == [(2, LOAD), (1, NO_GAIN)]


_EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["take", "end", "look", "no_thread"]),
        st.floats(0.0, 100.0) | st.floats(0.0, 0.1),
        st.floats(0.0, 1.0),
    ),
    max_size=200,
)


@settings(max_examples=200, deadline=None)
@given(least=st.integers(1, 3), more=st.integers(0, 4), likely=st.integers(1, 8), events=_EVENTS)
def test_number_is_within_its_bounds_whatever_happens(least, more, likely, events):
    """Threads follow it; a look is due only if the number may fall; and each change is counted."""
    instances = Instances(least=least, most=least + more, likely=likely)
    now, changes, running = 100.0, 0, []
    for event, passed_s, wait_s in events:
        now += passed_s
        change = None
        if event == "take" and len(running) < instances.threads:
            request = Caller().request
            request.enqueued_at = now - wait_s
            batch = Batch(requests=[request], rows=1, started_at=now)
            running.append(batch)
            change = instances.dispatched(batch, now, now, would_share=False)
        elif event == "end" and running:
            batch = running.pop(0)
            batch.run_s = now - batch.started_at
            instances.ended(batch, now)
        elif event == "look":
            change = instances.evaluate(now)
            assert instances.evaluate_at > now
        if instances.has_spare_thread and len(running) < instances.threads:
            instances.dismiss()
        if change is not None:
            changes += 1
            if change.starts_thread and wait_s > 0.5:
                instances.no_thread(now)
                changes += 1
        assert least <= instances.count <= instances.may_be <= least + more
        assert instances.count <= instances.threads
        assert (instances.evaluate_at == math.inf) == (instances.count == least)
        assert sum(instances.changes.values()) == changes
        assert instances.changes[IDLE] <= instances.changes[LOAD]

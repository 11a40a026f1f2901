"""Bisection of a batch: only failing requests fail, in a bounded number of runs."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inferd.errors import InferenceFailedError
from tests.fakes import Caller
from tests.unit.batching.executing import Model, poisoned, x


@given(st.lists(st.booleans(), min_size=2, max_size=70))
def test_number_of_runs_is_bounded(fails):
    """One per request at most, and one and a half times the logarithm of their number."""
    model = Model(poisoned)
    callers = [Caller(x=x(-1 if bad else number)) for number, bad in enumerate(fails)]
    model.run(*callers)
    for caller, bad in zip(callers, fails, strict=True):
        if bad:
            assert isinstance(caller.error, InferenceFailedError)
        else:
            np.testing.assert_array_equal(caller.result.outputs["y"], caller.request.inputs["x"])
    assert len(model.session.runs) <= len(fails) + math.ceil(1.5 * math.log2(len(fails)))


@given(st.integers(2, 70), st.data())
def test_single_failing_request_takes_twice_the_logarithm(number, data):
    """The likeliest case is the cheapest."""
    failing = data.draw(st.integers(0, number - 1))
    model = Model(poisoned)
    model.run(*[Caller(x=x(-1 if position == failing else position)) for position in range(number)])
    assert len(model.session.runs) <= 1 + 2 * math.ceil(math.log2(number))


@given(st.lists(st.booleans(), min_size=2, max_size=40), st.integers(0, 60))
def test_expired_requests_do_not_run_again(fails, runs_until):
    """Each run takes a second, and requests expire meanwhile."""

    def slow(inputs):
        model.clock.advance(1.0)
        return poisoned(inputs)

    model = Model(slow)
    callers = [Caller(x=x(-1 if bad else 1), deadline=100.5 + runs_until) for bad in fails]
    model.run(*callers)
    assert len(model.session.runs) <= runs_until + 1
    assert not any(caller.waits for caller in callers)

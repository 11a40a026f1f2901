"""Whatever the requests and the memory: each is answered that can be, and the runs are few."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inferd.errors import OutOfMemoryError
from tests.fakes import Caller, scale
from tests.unit.batching.executing import Model

_ROOM = 64
_MOST_ROWS = 32

#: Requests as what each of their rows takes of the memory.
_REQUESTS = st.lists(st.lists(st.integers(1, _ROOM + 8), min_size=1, max_size=6), min_size=1, max_size=12)


def _run(inputs):
    if inputs["x"].sum() > _ROOM * inputs["x"].shape[1]:
        raise MemoryError
    return scale(inputs)


def _callers(requests):
    return [Caller(x=np.repeat(np.array([rows], np.float32).T, 2, axis=1)) for rows in requests]


@given(_REQUESTS)
def test_each_request_is_answered_that_fits_row_by_row(requests):
    """With its own rows; the others fail with a status of their own."""
    model, callers = Model(_run, chunk_rows=_MOST_ROWS), _callers(requests)
    model.run(*callers)
    for caller, rows in zip(callers, requests, strict=True):
        if max(rows) <= _ROOM:
            np.testing.assert_array_equal(caller.result.outputs["y"], caller.request.inputs["x"])
        else:
            assert isinstance(caller.error, OutOfMemoryError)


@given(_REQUESTS)
def test_runs_are_bounded(requests):
    """By a few for each row: a batch must not occupy its worker for long."""
    model = Model(_run, chunk_rows=_MOST_ROWS)
    model.run(*_callers(requests))
    rows = sum(map(len, requests))
    assert len(model.session.runs) <= 2 * rows * (1 + math.ceil(math.log2(rows + 1)))


@given(st.integers(1, _MOST_ROWS), st.integers(1, 16))
def test_limit_is_a_size_that_works(rows, row_room):
    """If all rows are alike; and at least half of the largest that would."""
    model = Model(_run, chunk_rows=_MOST_ROWS)
    weight = _ROOM // row_room
    model.run(*_callers([[weight]] * rows))
    fits = _ROOM // weight
    if rows <= fits:
        assert model.limits == []
    elif fits > 1 or rows > 1:
        assert fits / 2 <= model.limits[-1] <= fits

"""Runs that are out of memory: answered in smaller groups and pieces, and what is remembered of it."""

import weakref

import numpy as np
import pytest

from inferd.errors import InferenceFailedError, OutOfMemoryError
from inferd.runtime.errors import RunFailedError
from inferd.runtime.stacking import stack
from tests.fakes import Caller, scale
from tests.unit.batching.executing import Model, x

_NO_MEMORY = RunFailedError(RuntimeError("std::bad_alloc"))


def room_for(rows):
    """A model whose runs have memory for as many rows; a negative value takes all of it, a zero is invalid."""

    def compute(inputs):
        if len(inputs["x"]) > rows or (inputs["x"] < 0).any():
            raise _NO_MEMORY
        if (inputs["x"] == 0).any():
            raise RuntimeError("zero")
        return scale(inputs)

    return compute


def answered(*callers):
    for caller in callers:
        np.testing.assert_array_equal(caller.result.outputs["y"], caller.request.inputs["x"])
    return True


def test_batch_is_answered_by_halves():
    """Until a size is found that works; the rest runs with that, and it is remembered."""
    model = Model(room_for(5), chunk_rows=16)
    callers = [Caller(x=x(value)) for value in range(1, 17)]
    batch = model.run(*callers)
    assert answered(*callers)
    assert model.session.runs == [16, 8, 4, 4, 4, 4]
    assert model.limits == [4]
    assert model.session.trials == 3, "after each failure, and in the end"
    assert model.stats.read().out_of_memory == 2
    assert batch.cut_off


def test_idle_models_free_their_memory_first():
    """Then the batch runs as it was, if that was enough, and nothing is remembered; it is tried once only."""
    room = [5]

    def compute(inputs):
        rows, room[0] = room[0], 16
        return room_for(rows)(inputs)

    model = Model(compute, chunk_rows=16)
    model.idle_have_memory = 9
    callers = [Caller(x=x(value)) for value in range(1, 17)]
    model.run(*callers)
    assert answered(*callers)
    assert (model.session.runs, model.limits) == ([16, 16], [])
    model = Model(room_for(5), chunk_rows=16)
    model.idle_have_memory = 9
    model.run(*(Caller() for _ in range(16)))
    assert (model.session.runs, model.limits, model.idle_asked) == ([16, 16, 8, 4, 4, 4, 4], [4], 1)


def test_size_that_leaves_no_room_is_halved():
    """The rest of the process needs memory, too: for threads, messages and answers."""
    model = Model(room_for(5), chunk_rows=16)
    model.has_room = False
    callers = [Caller(x=x(value)) for value in range(1, 17)]
    model.run(*callers)
    assert answered(*callers)
    assert model.limits == [2]


def test_large_request_is_answered_in_smaller_pieces():
    """Though it is alone in its batch; the answer is in one piece."""
    model, caller = Model(room_for(3), chunk_rows=8), Caller(x=x(*range(1, 21)))
    model.run(caller)
    assert answered(caller)
    assert model.session.runs == [8, 4, *[2] * 10]
    assert model.limits == [2]


def test_remembered_limit_applies_to_later_requests():
    """No further run fails."""
    model = Model(room_for(4), chunk_rows=8)
    model.run(Caller(x=x(*range(1, 9))))
    model.session.runs.clear()
    model.run(caller := Caller(x=x(*range(1, 9))))
    assert answered(caller)
    assert model.session.runs == [4, 4]


def test_batch_that_was_dispatched_before_another_one_lowered_the_limit():
    """All of its requests are answered, as if another instance had found nothing."""
    model = Model(room_for(8), chunk_rows=8)
    callers = [Caller(x=x(1, 2, 3)), Caller(x=x(4, 5, 6, 7))]
    model.memory.learned(2)
    model.run(*callers)
    assert answered(*callers)
    assert model.session.runs == [7]


def test_row_that_needs_too_much_fails_alone():
    """With a clear status; the others are answered, and nothing is remembered of the size of their batch."""
    model = Model(room_for(64), chunk_rows=8)
    callers = [Caller(x=x(value)) for value in (1, 2, -3, 4, 5, 6, 7, 8)]
    model.run(*callers)
    bad = callers.pop(2)
    assert isinstance(bad.error, OutOfMemoryError)
    assert bad.error.message == "the server has not enough memory to run it"
    assert answered(*callers)
    assert model.limits == []
    assert model.recovery.reason == ""


def test_groups_grow_again_after_one_large_row():
    """One such request does not make all others of the batch run one by one."""
    model = Model(room_for(64), chunk_rows=64)
    callers = [Caller(x=x(-1)), *(Caller(x=x(value)) for value in range(1, 32))]
    model.run(*callers)
    assert answered(*callers[1:])
    assert len(model.session.runs) <= 12


def test_memory_that_was_short_for_a_moment():
    """A row that works after memory was freed is answered; one row is no limit."""
    failures = [_NO_MEMORY]

    def compute(inputs):
        if failures:
            raise failures.pop()
        return scale(inputs)

    model, caller = Model(compute, chunk_rows=8), Caller(x=x(1))
    model.run(caller)
    assert answered(caller)
    assert (model.limits, model.session.trials) == ([], 2)


def test_rows_of_a_request_that_fail_one_by_one():
    """The text says that pieces were tried."""
    model, caller = Model(room_for(0), chunk_rows=8), Caller(rows=2)
    model.run(caller)
    assert caller.error.message == "the server has not enough memory to run its rows one by one"
    assert model.session.runs == [2, 1]
    assert model.stats.read().model_failures == 1


def test_request_in_one_piece_is_not_divided():
    """Where batching is off, one request is one run: it is tried once more after memory was freed."""
    model, caller = Model(room_for(1)), Caller(rows=4)
    model.run(caller)
    assert isinstance(caller.error, OutOfMemoryError)
    assert model.session.runs == [4, 4]


def test_outputs_of_earlier_pieces_are_free_when_memory_is_freed():
    """They are parts of the arena, which shrinks only where nothing is in use; tracebacks would keep them."""
    outputs, alive = [], []

    def compute(inputs):
        if len(outputs) == 2:
            raise _NO_MEMORY
        computed = scale(inputs)
        outputs.append(weakref.ref(computed["y"]))
        return computed

    model = Model(compute, chunk_rows=4)
    model.session.try_out = lambda: alive.append([output() is not None for output in outputs])
    model.run(caller := Caller(rows=12))
    assert isinstance(caller.error, OutOfMemoryError)
    assert alive[0] == [False, False]


def test_other_failures_among_the_groups_are_bisected():
    """A batch may have both."""
    model = Model(room_for(4), chunk_rows=8)
    callers = [Caller(x=x(value)) for value in (1, 2, 3, 4, 5, 0, 7, 8)]
    model.run(*callers)
    assert isinstance(callers.pop(5).error, InferenceFailedError)
    assert answered(*callers)


def test_lack_of_memory_among_bisected_parts():
    """As above, the other way round."""
    calls = []

    def compute(inputs):
        calls.append(len(inputs["x"]))
        if len(calls) == 2:
            raise _NO_MEMORY
        return room_for(64)(inputs)

    model = Model(compute, chunk_rows=8)
    callers = [Caller(x=x(value)) for value in (1, 2, 3, 4, 5, 0, 7, 8)]
    model.run(*callers)
    assert isinstance(callers.pop(5).error, InferenceFailedError)
    assert answered(*callers)


@pytest.mark.parametrize("where", ["stacking", "the model"])
def test_python_without_memory(where, monkeypatch):
    """A `MemoryError` of numpy is the same."""

    def compute(inputs):
        if where == "the model" and len(inputs["x"]) > 2:
            raise MemoryError
        return scale(inputs)

    def stack_few(signature, batch):
        if where == "stacking" and len(batch) > 2:
            raise MemoryError
        return stack(signature, batch)

    monkeypatch.setattr("inferd.batching.execution.stack", stack_few)
    model = Model(compute, chunk_rows=8)
    callers = [Caller(x=x(value)) for value in range(1, 9)]
    model.run(*callers)
    assert answered(*callers)
    assert model.limits == [2]


def test_session_is_opened_again_if_not_even_one_small_row_runs():
    """What the session holds is at fault then, and not the request."""
    model, caller = Model(room_for(0), chunk_rows=8), Caller(x=x(1))
    model.session.trial_errors = [_NO_MEMORY, _NO_MEMORY]
    model.run(caller)
    assert isinstance(caller.error, OutOfMemoryError)
    assert model.works == [False]
    assert "not even one small row runs" in model.recovery.reason

"""Running members of batches again alone: the choice of batches and members, and the effect of a difference."""

import logging

import numpy as np
import pytest

from inferd.batching.self_check import SelfCheck
from inferd.observability.metrics.models import RunOutcome
from inferd.runtime.runners import RunStop
from tests.fakes import Caller, FakeClock, FakeSession, scale
from tests.unit.batching.executing import Model, x


def centred_if_large(inputs):
    """A model that mixes rows only if some number is large."""
    rows = inputs["x"]
    mean = rows.mean(axis=0) if np.abs(rows).max() > 100 else 0
    return {"y": rows - mean, "sum": rows.sum(axis=1), "same": inputs["factor"]}


class Checks:
    """A check on a session whose runs take as long as configured."""

    def __init__(self, compute=scale, share=0.01, lone_s=1.0):
        self.clock = FakeClock()
        self.session = FakeSession(self._timed(compute))
        self.lone_s = lone_s
        self.check = SelfCheck(session=self.session, share=share, clock=self.clock)

    def _timed(self, compute):
        def run(inputs):
            self.clock.advance(self.lone_s)
            return compute(inputs)

        return run

    def _run(self, inputs, outputs, now):
        return self.session.run(inputs, outputs, RunStop())

    def batch(self, *values, run_s=1.0):
        """Run a batch of one-row members; return whether it was checked, and what was found."""
        inputs = {"x": x(*values), "factor": np.float32(1)}
        outputs = self._run(inputs, ("y", "sum"), self.clock())
        if not self.check.schedule.is_due(inputs, len(values), run_s):
            return False, None
        answers = dict(zip(("y", "sum"), outputs, strict=True))
        found, _ = self.check.compare(self._run, inputs, answers, [1] * len(values))
        return True, found


def test_checks_the_first_batch_of_each_size_class():
    """Other sizes use other kernels."""
    checks = Checks()
    assert [checks.batch(*range(rows))[0] for rows in (2, 3, 4, 7, 8, 2)] == [True, False, True, False, True, False]


@pytest.mark.parametrize(("share", "lone_s", "most"), [(0.01, 1.0, 0.01), (0.05, 0.5, 0.05), (0.01, 0.1, 0.01)])
def test_checks_stay_within_their_share_of_run_time(share, lone_s, most):
    """Apart from the first batch of each size class."""
    checks = Checks(share=share, lone_s=lone_s)
    checks.batch(1, 2)
    checked = sum(checks.batch(1, 2)[0] for _ in range(5000))
    assert 0.5 * most * 5000 <= checked * lone_s <= most * 5000


def test_share_of_zero_disables_checks():
    """Not even the first batch is checked."""
    checks = Checks(share=0.0)
    assert not any(checks.batch(1, 2)[0] for _ in range(100))


@pytest.mark.parametrize("seed", range(5))
def test_detects_influence_of_large_numbers_soon(seed):
    """Within 200 batches from when all numbers are large."""
    checks = Checks(centred_if_large)
    random = np.random.default_rng(seed)
    for _ in range(500):
        assert checks.batch(*random.normal(size=4))[1] is None
    assert any(checks.batch(*(1000 * random.normal(size=4)))[1] for _ in range(200))


@pytest.mark.parametrize("seed", range(5))
def test_detects_influence_of_rare_rows(seed):
    """Within 5,000 batches if one row in 64 is large, in batches of a few rows."""
    checks = Checks(centred_if_large)
    random = np.random.default_rng(seed)
    for number in range(5000):  # noqa: B007  (how far it came is what counts)
        values = random.normal(size=int(random.integers(2, 9)))
        values[random.random(values.shape) < 1 / 64] = 1000
        if checks.batch(*values)[1]:
            break
    assert number < 4999


def test_mismatched_batch_gets_correct_answers():
    """Its members run alone before any answer is sent, and batching stops."""
    model = Model(centred_if_large, check_share=0.01)
    callers = [Caller(x=x(value)) for value in (1, 2, 1000)]
    model.run(*callers)
    assert [caller.result.outputs["y"][0, 0] for caller in callers] == [
        0 if value > 100 else value for value in (1, 2, 1000)
    ]
    assert (model.stops, model.stats.checks) == (["batching"], [True])
    assert not model.session.signature.batchable
    assert [report.outcome for report in model.stats.reports] == [RunOutcome.DISCARDED, *3 * [RunOutcome.COMPLETED]]
    counts = model.stats.read()
    assert (counts.mismatches, counts.execution_count, counts.success.count) == (1, 3, 3)


def test_mismatch_is_logged_without_values(caplog):
    """With the ids of the requests, so that an operator can run one again."""
    model = Model(centred_if_large, check_share=0.01)
    with caplog.at_level(logging.ERROR):
        model.run(*[Caller(x=x(value)) for value in (1, 2, 1000)])
    (record,) = caplog.records
    assert "output" in record.reason
    assert "other rows of the batch" in record.reason
    assert "1000" not in record.reason + record.getMessage()
    assert len(record.request_ids) == 3


def test_configured_batch_axis_keeps_batching_on(caplog):
    """One line is logged, and the mismatched batch still gets correct answers."""
    model = Model(centred_if_large, check_share=0.01)
    model.session.batch_axis_is_given = True
    callers = [Caller(x=x(value)) for value in (1, 2, 1000)]
    model.run(*callers)
    model.run(*[Caller(x=x(*[1000] * rows)) for rows in (1, 3)])
    assert callers[0].result.outputs["y"][0, 0] == 1
    assert model.stops == []
    assert model.session.signature.batchable
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


def test_requests_taken_before_batching_stopped_run_alone():
    """A worker may hold a batch when another one detects the difference."""
    model = Model()
    model.session.stop_batching("test")
    callers = [Caller(x=x(1)), Caller(x=x(2, 3))]
    model.run(*callers)
    assert model.session.runs == [1, 2]
    assert callers[1].result.outputs["y"].shape == (2, 2)


def test_checks_chunks_of_a_large_request():
    """A row of a chunk runs again alone; after a mismatch the request runs whole."""
    model = Model(centred_if_large, chunk_rows=4, check_share=0.01)
    caller = Caller(x=x(1, 2, 1000, 4, 5, 6))
    model.run(caller)
    assert model.session.runs[-1] == 6
    assert model.stops == ["batching"]


def test_failed_check_changes_nothing(caplog):
    """The batch itself ran, and its answers are sent."""
    model = Model(check_share=0.01)
    run = model.session.run

    def fail_alone(inputs, outputs, stop):
        if len(inputs["x"]) == 1:
            raise RuntimeError
        return run(inputs, outputs, stop)

    model.session.run = fail_alone
    callers = [Caller(x=x(1)), Caller(x=x(2))]
    model.run(*callers)
    assert callers[0].result.outputs["y"][0, 0] == 1
    assert model.stops == []


def test_ill_conditioned_row_does_not_stop_batching():
    """Its own rounding errors decide its result, so a difference does not show that rows mix."""

    def chaotic(inputs):
        rows = inputs["x"].astype(np.float64)
        y = np.sin(rows * 1e7 * (1 + 1e-9 * len(rows))).astype(np.float32)
        return {"y": y, "sum": y.sum(axis=1), "same": inputs["factor"]}

    model = Model(chaotic, check_share=0.01)
    model.run(Caller(x=x(123.456)), Caller(x=x(789.1)))
    assert (model.stops, model.stats.checks) == ([], [False])

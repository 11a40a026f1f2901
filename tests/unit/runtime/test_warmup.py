"""Batch sizes that warm-up runs, and its memory budget."""

import logging
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pytest

from inferd.config.settings import BatchingSettings, ModelSettings
from inferd.runtime.batch_axes.synthetic_inputs import SyntheticInputs
from inferd.runtime.batch_axes.verdict import Standing, Verdict
from inferd.runtime.batch_axes.verification import Verification
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.providers import CPU, CUDA
from inferd.runtime.remembered_rows import RememberedRows
from inferd.runtime.session import OnnxSession
from inferd.runtime.verdict_cache import CacheFolder
from inferd.runtime.warmup import warm_up
from tests.fakes import FakeClock
from tests.unit.runtime.specs import signature, spec

MIB = 2**20
SIGNATURE = signature([spec("x", ("batch", 3), 0)], [spec("y", ("batch", 3), 0)])


class Recorder:
    """A fake runner that records rows, allocates ``row_mib`` per row, and fails with ``failure`` beyond ``most`` rows.

    A run takes ``row_s`` per row, by default too long to be repeated, ``cold_s`` longer if it is the first with this
    many rows, and longer by the entry of ``delays`` for its number.
    """

    def __init__(
        self,
        *,
        most: int = 1000,
        failure: type[Exception] = MemoryError,
        row_mib: int = 0,
        row_s: float = 1.0,
        cold_s: float = 0.0,
        delays: Mapping[int, float] = MappingProxyType({}),
    ) -> None:
        self.rows: list[int] = []
        self.shrunk = 0
        self.resident_mib = 100
        self._most = most
        self._failure = failure
        self._row_mib = row_mib
        self._row_s = row_s
        self._cold_s = cold_s
        self._delays = delays
        self.clock = FakeClock()
        self.timed: list[tuple[int, float]] = []
        self.remembered = RememberedRows(CacheFolder(None), "")

    def run(self, inputs, outputs, options):
        rows = len(inputs["x"])
        late_s = self._delays.get(len(self.rows), 0.0) + (0.0 if rows in self.rows else self._cold_s)
        self.clock.advance(self._row_s * rows + late_s)
        self.rows.append(rows)
        if self.rows[-1] > self._most:
            raise self._failure("no room")
        self.resident_mib = max(self.resident_mib, 100 + self._row_mib * self.rows[-1])
        return [np.zeros(())]

    def shrink(self, inputs, outputs):
        self.shrunk += 1
        self.resident_mib = 100 + self._row_mib


def run(runner: Recorder, *providers: str, usable_mib: int = 1000, max_batch_size: int = 64, **settings) -> Recorder:
    verification = Verification(
        signature=SIGNATURE,
        verdict=Verdict(standing=Standing.PROVEN),
        inputs=SyntheticInputs(signature=SIGNATURE, shapes={"x": (1, 3)}),
    )
    session = OnnxSession(
        runner=runner,
        verification=verification,
        providers=providers or (CPU,),
        parallel_runs=1,
        has_data_independent_work=True,
        open_runner=lambda: runner,
        remembered_rows=runner.remembered,
    )
    batching = BatchingSettings(max_batch_size=max_batch_size)
    runner.timed = warm_up(
        session,
        ModelSettings.model_validate({"batching": batching.model_dump(), **settings}),
        resident=lambda: runner.resident_mib * MIB,
        usable=lambda: usable_mib * MIB,
        clock=runner.clock,
    )
    return runner


@pytest.mark.parametrize(("largest", "sizes"), [(1, [1]), (2, [1, 2]), (8, [1, 2, 4, 8]), (64, [1, 2, 4, 64])])
def test_small_model_skips_to_largest_batch(largest, sizes):
    """The memory of a few rows predicts that of many."""
    assert run(Recorder(), max_batch_size=largest).rows == sizes


def test_large_model_grows_in_steps():
    """No step exceeds what can be extrapolated."""
    assert run(Recorder(row_mib=2)).rows == [1, 2, 4, 16, 64]


def test_stops_before_memory_runs_out(caplog):
    """Each size is logged before it runs; one that is too large does not run."""
    caplog.set_level(logging.INFO)
    runner = run(Recorder(row_mib=10))
    assert runner.rows == [1, 2, 4, 16]
    assert "warming up with up to 64 rows" in caplog.text
    assert "warming up with 16 rows, about 150 MiB" in caplog.text
    assert "warm-up ends before 64 rows, which would take about 630 MiB of 250 MiB" in caplog.text


def test_frees_memory():
    """Before, so that verification is not counted, and afterwards."""
    runner = run(Recorder(row_mib=2))
    assert (runner.shrunk, runner.resident_mib) == (2, 102)


def test_gpu_runs_every_size():
    """Kernels are selected for each shape. Powers of two and the largest size run again, however long that took."""
    runner = run(Recorder(row_s=0.011, cold_s=10), CUDA, CPU, max_batch_size=5)
    assert runner.rows == [1, 1, 2, 2, 3, 4, 4, 5, 5]
    assert runner.timed == [(rows, pytest.approx(0.011 * rows)) for rows in (1, 2, 4, 5)]


def test_short_runs_are_timed_again():
    """The first run of a shape is slower than those to come. A long one is not repeated: loading would take longer."""
    runner = run(Recorder(row_s=0.011, cold_s=0.001), max_batch_size=16)
    assert runner.rows == [1, 1, 2, 2, 4, 4, 16]
    assert runner.timed == [
        (1, pytest.approx(0.011)), (2, pytest.approx(0.022)), (4, pytest.approx(0.044)), (16, pytest.approx(0.177)),
    ]  # fmt: skip


def test_shortest_of_very_short_runs_counts():
    """Another process may delay any of them; a few milliseconds for each size are soon spent."""
    runner = run(Recorder(row_s=0.0001, delays={3: 0.004}), max_batch_size=64)
    assert Counter(runner.rows) == {1: 5, 2: 5, 4: 5, 64: 2}
    assert runner.timed == [(rows, pytest.approx(0.0001 * rows)) for rows in (1, 2, 4, 64)]


def test_only_what_ran_is_timed():
    """Not a size that memory did not suffice for."""
    assert [rows for rows, _ in run(Recorder(row_mib=10)).timed] == [1, 2, 4, 16]


def test_failing_size_is_an_error():
    """Before the first request, not with the first full batch; and if not even one row fits into memory."""
    with pytest.raises(ModelLoadError, match="cannot run 4 rows at once, lower max_batch_size: no room"):
        run(Recorder(most=3, failure=ValueError), max_batch_size=4)
    with pytest.raises(ModelLoadError, match="cannot run 1 rows at once"):
        run(Recorder(most=0), max_batch_size=4)


def test_lack_of_memory_limits_the_rows(caplog):
    """The model is served with smaller batches, and the next warm-up does not try more."""
    runner = run(Recorder(most=5), max_batch_size=64)
    assert runner.rows == [1, 2, 4, 64]
    assert runner.remembered.rows == 4
    assert "no memory to run 64 rows at once, so batches have up to 4" in caplog.text
    again = Recorder(most=5)
    again.remembered = runner.remembered
    assert run(again, max_batch_size=64).rows == [1, 2, 4]


@pytest.mark.parametrize("settings", [{"runtime": {"warmup": False}}])
def test_warmup_can_be_disabled(settings):
    """Then nothing runs."""
    runner = run(Recorder(), **settings)
    assert (runner.rows, runner.timed) == ([], [])


def test_runs_one_row_without_batching():
    """No batch will ever be larger."""
    verification = Verification(
        signature=SIGNATURE.without_batch_axes(), verdict=Verdict(standing=Standing.UNPROVEN), inputs=None
    )
    runner = Recorder()
    warm_up(
        OnnxSession(
            runner=runner,
            verification=verification,
            providers=(CPU,),
            parallel_runs=1,
            has_data_independent_work=True,
            open_runner=lambda: runner,
            remembered_rows=runner.remembered,
        ),
        ModelSettings(),
    )
    assert runner.rows == []
    assert run(Recorder(), batching={"enabled": False}).rows == [1]

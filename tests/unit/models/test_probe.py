"""Opening files in a process of its own first, with real files that crash and hang ONNX Runtime."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import psutil
import pytest

from inferd import demo
from inferd.config.settings import ModelSettings
from inferd.models import probe_pool, probe_process
from inferd.models.probe import ModelProbe
from inferd.models.repository import resolve
from inferd.runtime.batch_axes import establish
from inferd.runtime.batch_axes.verdict import Standing
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.session import open_session
from tests import onnx_models, onnx_traps
from tests.fakes import FakeClock
from tests.patience import PATIENCE_S

CRASH = "cannot load model.onnx: the model's file crashes ONNX Runtime: signal SIGFPE"


class Probe(ModelProbe):
    """A probe whose processes can be seen."""

    def pids(self) -> set[int]:
        mine = set()
        for child in psutil.Process().children():
            if child.status() != psutil.STATUS_ZOMBIE and child.pid not in self.before:
                mine.add(child.pid)
        return mine

    def __init__(self, timeout_s: float = PATIENCE_S) -> None:
        self.before = {child.pid for child in psutil.Process().children()}
        super().__init__(timeout_s=timeout_s, processes=2)


@pytest.fixture
def probe() -> Iterator[Probe]:
    probe = Probe()
    yield probe
    probe.stop()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return onnx_models.save(onnx_models.linear(), tmp_path / "good" / "model.onnx")


@pytest.fixture
def crashing(tmp_path: Path) -> Path:
    return onnx_models.save(onnx_traps.crashes_when_opened(), tmp_path / "crashing" / "model.onnx")


@pytest.fixture
def hanging(tmp_path: Path) -> Path:
    return onnx_models.save(onnx_traps.hangs_when_opened(), tmp_path / "hanging" / "model.onnx")


def test_one_process_opens_good_and_damaged_files(probe: Probe, good: Path, tmp_path: Path) -> None:
    """It has a lower priority, is the first to go without memory, dumps no core, and its output goes nowhere."""
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(good.read_bytes()[:-20])
    probe.check(good, uncached())
    (pid,) = probe.pids()
    probe.check(damaged, uncached())
    probe.check(onnx_models.save(onnx_traps.future_opset(), tmp_path / "future.onnx"), uncached())
    probe.check(good, uncached())
    assert probe.pids() == {pid}
    process = psutil.Process(pid)
    assert process.nice() > psutil.Process().nice()
    # Linux may give each session a share of the processors of its own; Ctrl-C in a terminal goes to its process group.
    assert (os.getsid(pid), os.getpgid(pid)) == (os.getsid(0), pid)
    assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000"
    assert {Path(f"/proc/{pid}/fd/{number}").readlink() for number in (1, 2)} == {Path(os.devnull)}


def test_refuses_crashing_file_and_opens_next(probe: Probe, good: Path, crashing: Path) -> None:
    with pytest.raises(ModelLoadError) as caught:
        probe.check(crashing, uncached())
    assert str(caught.value) == CRASH
    assert not probe.pids()
    probe.check(good, uncached())


def test_refuses_file_that_needs_too_much_memory(probe: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MiB may be taken however little there is."""
    monkeypatch.setattr(probe_pool, "available_bytes", lambda *_: 0)
    path = onnx_models.save(onnx_traps.needs_memory_when_opened(), tmp_path / "large.onnx")
    with pytest.raises(ModelLoadError) as caught:
        probe.check(path, uncached())
    assert str(caught.value) == "cannot load large.onnx: opening it needs more than 67108864 bytes of memory"
    assert not probe.pids()


class Limited:
    """A file that may be opened for 10 s; ``threads`` has what the process's threads have run and waited."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._clock = FakeClock()
        self.threads = {"main": (5.0, 100.0)}
        monkeypatch.setattr(probe_pool.time, "monotonic", self._clock)
        monkeypatch.setattr(probe_pool, "_processor_times", lambda _: self._times())
        self._limits = probe_pool._Limits(10.0, 0, 0, os.getpid())

    def _times(self) -> dict[str, probe_pool._ProcessorTimes]:
        return {name: probe_pool._ProcessorTimes(*times) for name, times in self.threads.items()}

    def later(self, seconds: float, **threads: tuple[float, float]) -> str:
        """Return the error after ``seconds`` more, in which ``threads`` have come to these times."""
        self._clock.advance(seconds)
        self.threads.update(threads)
        return self._limits.exceeded(0)


TOO_LONG = "opening it took longer than 10 s (repository.probe_timeout_s)"


def test_time_without_processor_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process has a low priority; of several threads, the one counts that has waited longest."""
    limited = Limited(monkeypatch)
    assert limited.later(15.0, main=(5.0, 101.0), opener=(0.0, 8.0)) == ""
    assert limited.later(4.0) == TOO_LONG


def test_adds_up_waits_of_alternating_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one waits for a processor, the other sleeps until it has run; neither has waited all the time."""
    limited = Limited(monkeypatch)
    assert limited.later(8.0, main=(5.0, 107.0)) == ""
    assert limited.later(8.0, opener=(0.0, 7.0)) == ""
    assert limited.later(7.0) == ""
    assert limited.later(2.0) == TOO_LONG


def test_time_on_a_processor_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alternating threads that never sleep would wait all the time."""
    limited = Limited(monkeypatch)
    assert limited.later(8.0, main=(8.0, 108.0), opener=(4.0, 0.0)) == ""
    assert limited.later(8.0, main=(9.0, 108.0), opener=(6.0, 8.0)) == ""
    assert limited.later(2.0, opener=(7.5, 10.0)) == TOO_LONG


def test_reads_times_of_threads() -> None:
    """Of this process, which has run, and of none."""
    times = probe_pool._processor_times(os.getpid())
    assert times[str(os.getpid())].ran_s > 0
    assert probe_pool._processor_times(-1) == {}


def test_opens_other_files_beside_hanging_one(
    probe: Probe, good: Path, hanging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process is started. The one with the file ends when its load is cancelled."""
    monkeypatch.setattr(probe_pool, "_PATIENCE_S", 0.01)
    cancelled = threading.Event()
    with opening(probe, hanging, uncached(), cancelled.is_set) as (pid, result):
        probe.check(good, uncached())
        assert len(probe.pids() - {pid}) == 1
        assert not result.done()
        cancelled.set()
        assert "the load was cancelled" in str(result.exception(PATIENCE_S))
    assert pid not in probe.pids()


def test_refuses_hanging_file_without_caching_it(good: Path, hanging: Path, tmp_path: Path) -> None:
    """How long it takes depends on the machine too."""
    probe = Probe(timeout_s=0.3)
    with pytest.raises(ModelLoadError) as caught:
        probe.check(hanging, cached(tmp_path))
    expected = "cannot load model.onnx: opening it took longer than 0.3 s (repository.probe_timeout_s)"
    assert str(caught.value) == expected
    assert not probe.pids()
    assert not list(tmp_path.glob("*.json"))


def test_caches_nothing_when_process_is_killed(probe: Probe, hanging: Path, tmp_path: Path) -> None:
    """As by the system when memory runs out."""
    with opening(probe, hanging, cached(tmp_path)) as (pid, result):
        os.kill(pid, signal.SIGKILL)
        expected = "the process that opened it was ended by SIGKILL, as it is when memory runs out"
        assert expected in str(result.exception(PATIENCE_S))
    assert not list(tmp_path.glob("*.json"))


def test_caches_nothing_when_file_changes_meanwhile(probe: Probe, hanging: Path, tmp_path: Path) -> None:
    with opening(probe, hanging, cached(tmp_path)) as (pid, result):
        os.kill(pid, signal.SIGSTOP)
        hanging.write_bytes(b"")
        os.kill(pid, signal.SIGBUS)
        os.kill(pid, signal.SIGCONT)
        assert "it was changed while it was opened" in str(result.exception(PATIENCE_S))
    assert not list(tmp_path.glob("*.json"))


def test_stopping_ends_what_is_being_opened(probe: Probe, good: Path, hanging: Path) -> None:
    with opening(probe, hanging, uncached()) as (pid, result):
        probe.stop()
        assert isinstance(result.exception(PATIENCE_S), ModelLoadError)
    assert pid not in probe.pids()
    with pytest.raises(ModelLoadError, match="the server is stopping"):
        probe.check(good, uncached())


def test_processes_end_when_there_is_nothing_to_do(probe: Probe, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_pool, "_IDLE_S", 0.01)
    probe.check(good, uncached())
    wait_until(lambda: not probe.pids())
    probe.check(good, uncached())


def test_process_ends_when_server_is_killed(hanging: Path) -> None:
    """Even while it is busy in ONNX Runtime."""
    script = (
        "import pathlib, sys\n"
        "from tests.unit.models.test_probe import Probe, probe_pool, uncached\n"
        "probe_pool._Limits.add_bytes = lambda *_: print('opening', flush=True)\n"
        "Probe().check(pathlib.Path(sys.argv[1]), uncached())"
    )
    with subprocess.Popen([sys.executable, "-c", script, hanging], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"opening\n"
            (process,) = psutil.Process(server.pid).children()
            begun = process.cpu_times().user
            wait_until(lambda: process.cpu_times().user > begun + 0.1)
        finally:
            server.kill()
    wait_until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


def test_models_are_loaded_without_a_process_if_there_can_be_none(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Logged once a minute."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'Traceback\nImportError: no module' >&2; exit 3")
    program.chmod(0o755)
    with caplog.at_level(logging.WARNING):
        for executable in (program, tmp_path / "missing"):
            probe = Probe()
            monkeypatch.setattr(sys, "executable", str(executable))
            for _ in range(2):
                probe.check(good, uncached())
    prefix = "model files are opened without a separate process first: "
    assert [record.getMessage() for record in caplog.records] == [
        f"{prefix}it ended with status 3: ImportError: no module",
        f"{prefix}No such file or directory",
    ]


def test_starts_no_process_for_demo_and_unreadable_files(probe: Probe, tmp_path: Path) -> None:
    """The demo model, and what cannot be read."""
    (source,) = resolve([demo.repository()])
    probe.check(source.path, uncached())
    for path in (tmp_path, tmp_path / "missing.onnx"):
        probe.check(path, uncached())
        probe.check(path, cached(tmp_path))
    assert not probe.pids()


def test_known_files_are_not_opened_again(
    probe: Probe, good: Path, crashing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known holds for the file, its weights, the version of ONNX Runtime and the settings that matter."""
    weighted = onnx_models.save_with_external_data(tmp_path / "weighted.onnx")
    with pytest.raises(ModelLoadError):
        probe.check(crashing, cached(tmp_path))
    probe.check(good, cached(tmp_path))
    probe.check(weighted, cached(tmp_path))

    opened: list[Path] = []
    monkeypatch.setattr(probe_pool.ProbePool, "open", lambda _, path, *__: opened.append(path) or probe_pool.Outcome())
    with pytest.raises(ModelLoadError) as caught:
        probe.check(crashing, cached(tmp_path))
    assert str(caught.value) == CRASH
    probe.check(good, cached(tmp_path))
    probe.check(weighted, cached(tmp_path, max_run_ms=5))
    assert not opened

    probe.check(good, cached(tmp_path, inter_op_threads=2))
    with (tmp_path / "weighted.weights").open("ab") as file:
        file.write(b"more")
    probe.check(weighted, cached(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(onnxruntime, "__version__", "999")
        probe.check(crashing, cached(tmp_path))
    onnx_models.save(onnx_models.shared_scalar(), good)
    probe.check(good, cached(tmp_path))
    assert opened == [good, weighted, crashing, good]


def test_caches_nothing_while_weights_are_missing(probe: Probe, tmp_path: Path) -> None:
    """They may be what crashes; of a file that is no model, all is known."""
    weighted = onnx_models.save_with_external_data(tmp_path / "weighted.onnx")
    (tmp_path / "weighted.weights").unlink()
    probe.check(weighted, cached(tmp_path))
    assert not list(tmp_path.glob("*.json"))
    weighted.write_bytes(weighted.read_bytes()[:-5])
    probe.check(weighted, cached(tmp_path))
    assert len(list(tmp_path.glob("*.json"))) == 1


def test_batching_is_verified_there(probe: Probe, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server then finds the verdict in the cache, and runs nothing for it."""
    probe.check(good, cached(tmp_path))
    monkeypatch.setattr(establish, "_verified", lambda *_: pytest.fail("verified again"))
    session = open_session(good, cached(tmp_path))
    assert session.verdict.standing is Standing.PROVEN


@pytest.mark.parametrize(
    ("messages", "outcome"),
    [
        ([{"weights": {}, "bytes": 0}], probe_pool.Outcome(failure="it takes too long")),
        ([{"weights": {}, "bytes": 0}, {"opened": True}], probe_pool.Outcome(weights={}, is_over=False)),
        ([{"weights": {}, "bytes": 0}, {"opened": True}, {"ended": True}], probe_pool.Outcome(weights={})),
    ],
)
def test_limits_refuse_files_until_they_are_open(
    messages: list[dict[str, object]], outcome: probe_pool.Outcome, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verification may take longer: the process is ended then, and the server does that itself."""
    monkeypatch.setattr(probe_pool._Limits, "exceeded", lambda *_: "it takes too long")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for message in messages:
            probe_process.send(theirs, message)
        process = probe_pool._Process(SimpleNamespace(pid=os.getpid()), ours)
        assert process.open(good, uncached(), PATIENCE_S, lambda: False) == outcome


@pytest.mark.parametrize(
    "content", ["", "[1]", '{"failure": 3, "weights": {}}', '{"failure": "", "weights": {"/x": ""}}']
)
def test_damaged_entries_of_the_cache_are_not_used(
    probe: Probe, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    opened: list[Path] = []
    outcome = probe_pool.Outcome(weights={})
    monkeypatch.setattr(probe_pool.ProbePool, "open", lambda _, path, *__: opened.append(path) or outcome)
    probe.check(good, cached(tmp_path))
    (entry,) = tmp_path.glob("*.json")
    entry.write_text(content)
    probe.check(good, cached(tmp_path))
    assert opened == [good, good]


def uncached() -> ModelSettings:
    return ModelSettings.model_validate({"runtime": {"verdict_cache": None}})


def cached(folder: Path, **runtime: object) -> ModelSettings:
    return ModelSettings.model_validate({"runtime": {"verdict_cache": folder, **runtime}})


@contextmanager
def opening(
    probe: Probe, path: Path, settings: ModelSettings, is_cancelled: Callable[[], bool] = lambda: False
) -> Iterator[tuple[int, "Future[None]"]]:
    """Context in which a process is busy with the hanging file at ``path``."""
    begun = threading.Event()
    with ThreadPoolExecutor(1) as thread, pytest.MonkeyPatch.context() as patch:
        # Called when it has reported the weights, before it opens the model.
        patch.setattr(probe_pool._Limits, "add_bytes", lambda *_: begun.set())
        result = thread.submit(probe.check, path, settings, is_cancelled)
        try:
            assert begun.wait(PATIENCE_S)
            (pid,) = probe.pids()
            yield pid, result
        finally:
            probe.stop()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)

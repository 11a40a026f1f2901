"""Latency and memory while versions are switched under constant load.

Two models get requests at random times of a fixed rate, however late the answers are, and are switched in turn to a new
version with the same weights. The latencies of requests that were open during a switch, from the call that loads the
new version to the end of the old one, are compared with those of all others. That each answer is of a version that may
serve is tested by tests/fault/test_version_switches.py.

With ``--control``, a second measurement switches nothing: for about as long, another process of the lowest priority
keeps a core busy. What that costs in latency is the share of the machine, not of the server.
"""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import psutil
from onnx import numpy_helper
from rich.console import Console
from rich.table import Table

from benchmarks import machine, options, report
from benchmarks.load import grpcload
from benchmarks.models import ROOT, Model
from benchmarks.process import Placement, Server, free_port
from benchmarks.wires import MODEL_INFER, open_inference_request
from inferd.client import Client, ModelState
from inferd.runtime.background import step_back

_MODELS = ("small", "mid")
_NAMES = ("first", "second")
_MIB = 2**20
_PAUSE_S = 0.3
#: Before the first switch and after the last one.
_STEADY_S = 4.0
_SETTLE_S = 3.0
_UNLOAD_POLL_S = 0.05
_WATCH_S = 0.05
#: Processor time of the other process that works in place of a switch.
_CONTROL_S = 0.04
_LOWEST_PRIORITY = 19
#: The load ends when the last switch has.
_MOST_S = 3600.0
_READY_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One request; times on the monotonic clock, in seconds."""

    sent_at: float
    took_s: float
    outcome: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Switch:
    """One switch of a model to ``version``."""

    model: str
    version: int
    began_at: float
    loaded_at: float
    ended_at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a server did; latencies in milliseconds, sizes in MiB."""

    model: str
    placement: str
    control: bool
    requests_per_s: float
    requests: int
    switches: int
    failed: int
    steady_p50_ms: float
    steady_p99_ms: float
    switching_p50_ms: float
    switching_p99_ms: float
    load_ms: float
    start_mib: float
    end_mib: float
    peak_mib: float
    file_mib: float


class _Repository:
    """A repository whose versions are prepared before the measurement, each with weights of its own."""

    def __init__(self, root: Path, model: Model) -> None:
        self.root = root
        self._proto = onnx.load(model.path)

    def prepare(self, name: str, version: int) -> None:
        """Write a version where the server does not look."""
        weight = self._proto.graph.initializer[0]
        values = numpy_helper.to_array(weight) * np.float32(1 + 1e-6 * version)
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        staged = _staged(self.root, name, version)
        staged.mkdir(parents=True)
        onnx.save(self._proto, staged / "model.onnx")


def _publish(root: Path, name: str, version: int) -> None:
    """Add a version to those that the server finds."""
    (root / name).mkdir(exist_ok=True)
    _staged(root, name, version).rename(root / name / str(version))


def _staged(root: Path, name: str, version: int) -> Path:
    return root / f".{name}-{version}"


def _switch(client: Client, root: Path, number: int) -> list[Switch]:
    """Switch the models in turn, ``number`` times, to versions that `_Repository.prepare` has written."""
    # This thread takes a millisecond to read an answer; the server's threads are not to wait for that.
    step_back()
    done = []
    for name, version in _planned(number):
        _publish(root, name, version)
        began_at = time.monotonic()
        client.load_model(name)
        loaded_at = time.monotonic()
        _wait_until_old_one_is_gone(client, name)
        done.append(
            Switch(model=name, version=version, began_at=began_at, loaded_at=loaded_at, ended_at=time.monotonic())
        )
        time.sleep(_PAUSE_S)
    return done


def _keep_busy(number: int) -> list[Switch]:
    """Let another process work ``number`` times, as if it were switches."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_work_on_demand, args=(theirs,), daemon=True)
    process.start()
    done = []
    for position in range(number):
        began_at = time.monotonic()
        ours.send(True)
        ours.recv()
        ended_at = time.monotonic()
        done.append(Switch(model="", version=position, began_at=began_at, loaded_at=ended_at, ended_at=ended_at))
        time.sleep(_PAUSE_S)
    ours.send(False)
    process.join()
    return done


def _work_on_demand(asked: Connection) -> None:
    os.nice(_LOWEST_PRIORITY)
    while asked.recv():
        end = time.process_time() + _CONTROL_S
        while time.process_time() < end:
            pass
        asked.send(True)


def _wait_until_old_one_is_gone(client: Client, name: str) -> None:
    states = [ModelState.UNLOADING]
    while ModelState.UNLOADING in states or states.count(ModelState.READY) != 1:
        time.sleep(_UNLOAD_POLL_S)
        states = [each.state for each in client.models() if each.name == name]


def _planned(number: int) -> list[tuple[str, int]]:
    """Return which model is switched to which version."""
    return [(_NAMES[position % len(_NAMES)], 2 + position // len(_NAMES)) for position in range(number)]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """What was seen of a server; resident sets in bytes."""

    calls: Sequence[Call]
    switches: Sequence[Switch]
    start_bytes: int
    end_bytes: int
    peak_bytes: int


def _observe(
    address: str, root: Path, model: Model, rate: float, number: int, process: psutil.Process, *, control: bool
) -> _Seen:
    sizes: list[int] = []
    with Client(address) as client, TemporaryDirectory() as folder:
        client.wait_until_ready(timeout_s=_READY_S)
        logs = [Path(folder, f"{name}.log") for name in _NAMES]
        with ExitStack() as stack:
            for name, log in zip(_NAMES, logs, strict=True):
                stack.enter_context(_load(address, name, model, rate / len(_NAMES), log))
            stack.enter_context(_watch(process, sizes))
            time.sleep(_STEADY_S)
            start_bytes = process.memory_info().rss
            switches = _keep_busy(number) if control else _switch(client, root, number)
            time.sleep(_STEADY_S)
        calls = [call for log in logs for call in _calls(log)]
    time.sleep(_SETTLE_S)
    end_bytes = process.memory_info().rss
    return _Seen(calls=calls, switches=switches, start_bytes=start_bytes, end_bytes=end_bytes, peak_bytes=max(sizes))


@contextmanager
def _load(address: str, name: str, model: Model, rate: float, log: Path) -> Iterator[None]:
    """Send requests to a model meanwhile, and write what became of each to ``log``."""
    load = grpcload.Load(
        target=address,
        method=MODEL_INFER,
        message=open_inference_request(replace(model, served_as=name), model.rows()[0]).SerializeToString(),
        poisson_per_s=rate,
        seed=1 + _NAMES.index(name),
        warmup_s=0.0,
        duration_s=_MOST_S,
        log=log,
    )
    with TemporaryDirectory() as folder:
        process = subprocess.Popen([grpcload.build(), *load.arguments(Path(folder))], stdout=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


@contextmanager
def _watch(process: psutil.Process, sizes: list[int]) -> Iterator[None]:
    """Keep the resident set in ``sizes`` meanwhile."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(_WATCH_S):
            sizes.append(process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _calls(log: Path) -> Iterator[Call]:
    for line in log.read_text().splitlines():
        intended_ns, latency_ns, outcome = line.split()
        yield Call(sent_at=int(intended_ns) / 1e9, took_s=int(latency_ns) / 1e9, outcome=outcome)


def measure(model: Model, placement: Placement, rate: float, number: int, *, control: bool) -> Outcome:
    """Start a server, load it, and switch versions."""
    port = free_port()
    with TemporaryDirectory() as folder:
        repository = _Repository(Path(folder) / "models", model)
        for name, version in [*((name, 1) for name in _NAMES), *_planned(number)]:
            repository.prepare(name, version)
        for name in _NAMES:
            _publish(repository.root, name, 1)
        command = [sys.executable, "-m", "inferd", "serve", str(repository.root), "--grpc-port", str(port)]
        command += ["--http-port", "none", "--metrics-port", "0"]
        command += ["--model-control-mode", "explicit", "--load-model", "*"]
        command += ["--set", "repository.versions.latest=1", "--set", "log.access=false"]
        environment = {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": folder}
        with Server([*placement.server, *command], environment, Path(folder)) as server:
            process = server.tree()[0]
            seen = _observe(f"127.0.0.1:{port}", repository.root, model, rate, number, process, control=control)
    return _outcome(model, placement, rate, seen, control=control)


def _outcome(model: Model, placement: Placement, rate: float, seen: _Seen, *, control: bool) -> Outcome:
    during: list[float] = []
    steady: list[float] = []
    for call in seen.calls:
        ended_at = call.sent_at + call.took_s
        overlaps = any(each.began_at <= ended_at and call.sent_at <= each.ended_at for each in seen.switches)
        (during if overlaps else steady).append(call.took_s * 1000)
    return Outcome(
        model=model.name,
        placement=placement.value,
        control=control,
        requests_per_s=rate,
        requests=len(seen.calls),
        switches=len(seen.switches),
        failed=sum(call.outcome != "OK" for call in seen.calls),
        steady_p50_ms=float(np.percentile(steady, 50)),
        steady_p99_ms=float(np.percentile(steady, 99)),
        switching_p50_ms=float(np.percentile(during, 50)),
        switching_p99_ms=float(np.percentile(during, 99)),
        load_ms=float(np.median([(each.loaded_at - each.began_at) * 1000 for each in seen.switches])),
        start_mib=seen.start_bytes / _MIB,
        end_mib=seen.end_bytes / _MIB,
        peak_mib=seen.peak_bytes / _MIB,
        file_mib=model.path.stat().st_size / _MIB,
    )


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    """Print a table."""
    columns = ("model", "placement", "while", "requests/s", "switches", "failed", "p50 ms", "p99 ms")
    table = Table(*columns, "p99 meanwhile", "ratio", "load ms", "MiB: start", "end", "peak", "file")
    for one in outcomes:
        table.add_row(
            one.model,
            one.placement,
            "another process works" if one.control else "switching",
            f"{one.requests_per_s:,.0f}",
            str(one.switches),
            str(one.failed),
            f"{one.steady_p50_ms:.2f}",
            f"{one.steady_p99_ms:.2f}",
            f"{one.switching_p99_ms:.2f}",
            f"{one.switching_p99_ms / one.steady_p99_ms:.2f}",
            f"{one.load_ms:.0f}",
            *(f"{size:.0f}" for size in (one.start_mib, one.end_mib, one.peak_mib, one.file_mib)),
        )
    console.print(table)


def main() -> None:
    """Measure, print, and write the results."""
    parser = options.parser(__doc__, "switches")
    options.add_placement_and_rounds(parser, rounds=1)
    parser.add_argument("--rate", type=float, default=200.0, help="requests per second; default 200")
    parser.add_argument("--switches", type=int, default=50, help="default 50")
    parser.add_argument("--control", action="store_true", help="also let another process work in place of the switches")
    chosen = parser.parse_args()
    outcomes = [
        measure(model, placement, chosen.rate, chosen.switches, control=control)
        for _ in range(chosen.rounds)
        for placement in options.placements(chosen)
        for model in options.models(chosen, _MODELS)
        for control in ((False, True) if chosen.control else (False,))
    ]
    console = report.console()
    show(outcomes, console)
    report.write_json(chosen.name, {"machine": machine.describe(), "outcomes": [*map(asdict, outcomes)]}, console)


if __name__ == "__main__":
    main()

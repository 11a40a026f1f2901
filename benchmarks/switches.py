"""Latency and memory while versions are switched under constant load.

Two models get requests at a fixed rate, however late the answers are, and are switched in turn to a new version with
the same weights. The latencies of requests that were sent during a switch, from the call that loads the new version to
the end of the old one, are compared with those of all others. Every answer must name a version that may serve.
"""

import asyncio
import itertools
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import psutil
from onnx import numpy_helper
from rich.console import Console
from rich.table import Table

from benchmarks import machine, options, report
from benchmarks.models import ROOT, Model
from benchmarks.process import Placement, Server, free_port
from inferd.client import AsyncClient, Client, InferdError, ModelState

_MODELS = ("small", "mid")
_NAMES = ("first", "second")
_MIB = 2**20
_PAUSE_S = 0.3
#: Before the first switch and after the last one.
_STEADY_S = 4.0
_SETTLE_S = 3.0
_UNLOAD_POLL_S = 0.05
_READY_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One request; times on the monotonic clock."""

    model: str
    sent_at: float
    took_s: float
    version: int
    error: str


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
    requests_per_s: float
    requests: int
    switches: int
    failed: int
    wrong_version: int
    steady_p50_ms: float
    steady_p99_ms: float
    switching_p50_ms: float
    switching_p99_ms: float
    load_ms: float
    start_mib: float
    end_mib: float
    peak_mib: float
    file_mib: float


class _Load:
    """Sends requests to the models in turn, at a fixed rate."""

    def __init__(self, client: AsyncClient, rows: Sequence[dict[str, np.ndarray]], rate: float) -> None:
        self._client = client
        self._rows = itertools.cycle({name: value[np.newaxis] for name, value in row.items()} for row in rows)
        self._rate = rate
        self._open: set[asyncio.Task[None]] = set()
        self.calls: list[Call] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Send until ``stop`` is set, and wait for the answers."""
        next_at = time.monotonic()
        models = itertools.cycle(_NAMES)
        while not stop.is_set():
            task = asyncio.create_task(self._call(next(models), next(self._rows), next_at))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            next_at += 1 / self._rate
            await asyncio.sleep(max(0.0, next_at - time.monotonic()))
        await asyncio.gather(*self._open)

    async def _call(self, model: str, row: dict[str, np.ndarray], due_at: float) -> None:
        version, failure = 0, ""
        try:
            version = int((await self._client.infer(model, row)).version)
        except InferdError as error:
            failure = repr(error)
        took_s = time.monotonic() - due_at
        self.calls.append(Call(model=model, sent_at=due_at, took_s=took_s, version=version, error=failure))


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


def _switch(address: str, root: Path, number: int) -> list[Switch]:
    """Switch the models in turn, ``number`` times, with versions that `_Repository.prepare` has written."""
    done = []
    with Client(address) as client:
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


def _wait_until_old_one_is_gone(client: Client, name: str) -> None:
    while True:
        states = [each.state for each in client.models() if each.name == name]
        if ModelState.UNLOADING not in states and states.count(ModelState.READY) == 1:
            return
        time.sleep(_UNLOAD_POLL_S)


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


async def _observe(address: str, root: Path, model: Model, rate: float, number: int, process: psutil.Process) -> _Seen:
    loop = asyncio.get_running_loop()
    # From another process, so that the latencies do not count what a client does to switch.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as control:
        async with AsyncClient(address) as client:
            await client.wait_until_ready(timeout_s=_READY_S)
            await loop.run_in_executor(control, _switch, address, root, 0)
            load, stop = _Load(client, model.rows(), rate), asyncio.Event()
            sizes: list[int] = []
            running = [asyncio.create_task(load.run(stop)), asyncio.create_task(_watch(process, sizes, stop))]
            await asyncio.sleep(_STEADY_S)
            start_bytes = process.memory_info().rss
            switches = await loop.run_in_executor(control, _switch, address, root, number)
            await asyncio.sleep(_STEADY_S)
            stop.set()
            await asyncio.gather(*running)
    await asyncio.sleep(_SETTLE_S)
    end_bytes = process.memory_info().rss
    return _Seen(
        calls=load.calls, switches=switches, start_bytes=start_bytes, end_bytes=end_bytes, peak_bytes=max(sizes)
    )


async def _watch(process: psutil.Process, sizes: list[int], stop: asyncio.Event) -> None:
    """Keep the resident set in ``sizes``."""
    while not stop.is_set():
        sizes.append(process.memory_info().rss)
        await asyncio.sleep(_UNLOAD_POLL_S)


def _wrong(call: Call, switches: Sequence[Switch]) -> bool:
    """Whether a version answered that could not serve between sending and answer."""
    own = [each for each in switches if each.model == call.model]
    oldest = max((each.version for each in own if each.loaded_at < call.sent_at), default=1)
    newest = max((each.version for each in own if each.began_at < call.sent_at + call.took_s), default=1)
    return not oldest <= call.version <= newest


def measure(model: Model, placement: Placement, rate: float, number: int) -> Outcome:
    """Start a server, load it, and switch versions."""
    port = free_port()
    with TemporaryDirectory() as folder:
        repository = _Repository(Path(folder) / "models", model)
        for name, version in [*((name, 1) for name in _NAMES), *_planned(number)]:
            repository.prepare(name, version)
        for name in _NAMES:
            _publish(repository.root, name, 1)
        command = [sys.executable, "-m", "inferd", "serve", str(repository.root), "--grpc-port", str(port)]
        command += ["--metrics-port", "0", "--model-control-mode", "explicit", "--load-model", "*"]
        command += ["--set", "repository.versions.latest=1", "--set", "log.access=false"]
        environment = {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": folder}
        with Server([*placement.server, *command], environment, Path(folder)) as server:
            process = server.tree()[0]
            seen = asyncio.run(_observe(f"127.0.0.1:{port}", repository.root, model, rate, number, process))
    return _outcome(model, placement, rate, seen)


def _outcome(model: Model, placement: Placement, rate: float, seen: _Seen) -> Outcome:
    during: list[float] = []
    steady: list[float] = []
    for call in seen.calls:
        ended_at = call.sent_at + call.took_s
        overlaps = any(each.began_at <= ended_at and call.sent_at <= each.ended_at for each in seen.switches)
        (during if overlaps else steady).append(call.took_s * 1000)
    return Outcome(
        model=model.name,
        placement=placement.value,
        requests_per_s=rate,
        requests=len(seen.calls),
        switches=len(seen.switches),
        failed=sum(bool(call.error) for call in seen.calls),
        wrong_version=sum(not call.error and _wrong(call, seen.switches) for call in seen.calls),
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
    columns = ("model", "placement", "requests/s", "switches", "failed", "wrong", "p50 ms", "p99 ms")
    table = Table(*columns, "p99 while switching", "ratio", "load ms", "MiB: start", "end", "peak", "file")
    for one in outcomes:
        table.add_row(
            one.model,
            one.placement,
            f"{one.requests_per_s:,.0f}",
            str(one.switches),
            str(one.failed),
            str(one.wrong_version),
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
    chosen = parser.parse_args()
    outcomes = [
        measure(model, placement, chosen.rate, chosen.switches)
        for _ in range(chosen.rounds)
        for placement in options.placements(chosen)
        for model in options.models(chosen, _MODELS)
    ]
    console = report.console()
    show(outcomes, console)
    report.write_json(chosen.name, {"machine": machine.describe(), "outcomes": [*map(asdict, outcomes)]}, console)


if __name__ == "__main__":
    main()

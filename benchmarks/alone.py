"""Latency of a single caller: what a call adds to the model's own run, compared with a call that does nothing.

One client alternates between ServerLive, ModelInfer and ONNX Runtime in its own process, with default settings and
with a batching delay.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import grpc
import onnxruntime
from rich.console import Console
from rich.table import Table

from benchmarks import check, machine, options, report
from benchmarks.models import Model
from benchmarks.process import Placement, Server, free_port
from benchmarks.servers import CONTENDERS, Job, launch_inferd
from benchmarks.wires import MODEL_INFER, open_inference_request
from inferd._generated.inference import grpc_service_pb2 as oip

_MODELS = ("small", "mid", "minilm16")
_WAITS_MS = (0, 5)
_SECONDS = 2.0
_WARM_UP = 50
#: Calls of one kind in a row; alternating spreads the noise of the machine over all three.
_AT_A_TIME = 5
_SERVER_LIVE = "/inference.GRPCInferenceService/ServerLive"


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """Medians in milliseconds. ``over_ms`` is what inference adds to the run and to an empty call."""

    model: str
    placement: str
    max_wait_ms: float
    run_ms: float
    noop_ms: float
    infer_ms: float
    over_ms: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "over_ms", self.infer_ms - self.run_ms - self.noop_ms)


def measure(model: Model, placement: Placement, max_wait_ms: float) -> Times:
    """Start a server, check its answers, and time the three kinds of call."""
    with TemporaryDirectory() as name, _placed(placement):
        job = Job(model=model, setting=None, port=free_port(), folder=Path(name))
        launch = launch_inferd(job)
        environment = launch.environment | {"INFERD_BATCHING__MAX_WAIT_MS": str(max_wait_ms)}
        with Server([*placement.server, *launch.command], environment, job.folder) as server:
            wire, session = CONTENDERS[report.OURS].wire, _session(model, placement)
            server.wait_ready(lambda: check.check_one(wire, model, job.port, session, model.rows()[0]))
            run, noop, infer = _time(model, job.port, session)
    return Times(
        model=model.name, placement=placement, max_wait_ms=max_wait_ms, run_ms=run, noop_ms=noop, infer_ms=infer
    )


@contextmanager
def _placed(placement: Placement) -> Iterator[None]:
    """Pin this process, the load generator, to its core; the server's command pins itself."""
    before = os.sched_getaffinity(0)
    if placement is Placement.PINNED:
        os.sched_setaffinity(0, {1})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _session(model: Model, placement: Placement) -> onnxruntime.InferenceSession:
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = placement.server_cores
    made.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(model.path), made, providers=["CPUExecutionProvider"])


def _time(model: Model, port: int, session: onnxruntime.InferenceSession) -> list[float]:
    row = model.rows()[0]
    inputs = {name: array[None] for name, array in row.items()}
    request, live = open_inference_request(model, row).SerializeToString(), oip.ServerLiveRequest().SerializeToString()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer = channel.unary_unary(MODEL_INFER, None, None)
        noop = channel.unary_unary(_SERVER_LIVE, None, None)
        calls: list[Callable[[], object]] = [
            lambda: session.run(None, inputs),
            lambda: noop(live),
            lambda: infer(request),
        ]
        for call in calls * _WARM_UP:
            call()
        return _medians_ms(calls)


def _medians_ms(calls: list[Callable[[], object]]) -> list[float]:
    taken: list[list[int]] = [[] for _ in calls]
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        for call, times in zip(calls, taken, strict=True):
            for _ in range(_AT_A_TIME):
                started = time.perf_counter_ns()
                call()
                times.append(time.perf_counter_ns() - started)
    return [median(times) / 1e6 for times in taken]


def show(rounds: list[Times], console: Console) -> list[Times]:
    """Print the medians of the rounds and return them."""
    groups: dict[tuple[str, str, float], list[Times]] = {}
    for times in rounds:
        groups.setdefault((times.model, times.placement, times.max_wait_ms), []).append(times)
    table = Table("model", "placement", "max_wait_ms", "session.run ms", "no-op ms", "ModelInfer ms", "over both ms")
    medians = []
    for (model, placement, wait), group in groups.items():
        times = Times(
            model=model,
            placement=placement,
            max_wait_ms=wait,
            run_ms=median(one.run_ms for one in group),
            noop_ms=median(one.noop_ms for one in group),
            infer_ms=median(one.infer_ms for one in group),
        )
        medians.append(times)
        numbers = (times.run_ms, times.noop_ms, times.infer_ms, times.over_ms)
        table.add_row(model, placement, f"{wait:g}", *(f"{number:.3f}" for number in numbers))
    console.print(table)
    return medians


def main() -> None:
    """Measure, print, and write the results."""
    parser = options.parser(__doc__, "alone")
    options.add_placement_and_rounds(parser)
    chosen = parser.parse_args()
    rounds = [
        measure(model, placement, wait)
        for _ in range(chosen.rounds)
        for model in options.models(chosen, _MODELS)
        for placement in options.placements(chosen)
        for wait in _WAITS_MS
    ]
    console = report.console()
    medians = show(rounds, console)
    report.write_json(
        chosen.name,
        {"machine": machine.describe(), "medians": [*map(asdict, medians)], "rounds": [*map(asdict, rounds)]},
        console,
    )


if __name__ == "__main__":
    main()

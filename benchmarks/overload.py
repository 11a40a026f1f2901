"""What is left of a server that is asked for more than it can do.

Its capacity is measured with a closed loop. Then requests come at random moments, two and four times as often, with and
without deadlines, while its health is probed. A share of 90 % means that nine tenths of the capacity was answered
within a second of being asked for. Servers run with their defaults.
"""

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmarks import check, machine, options, report
from benchmarks.load import grpcload
from benchmarks.models import Model
from benchmarks.process import Placement, Server, free_port
from benchmarks.servers import CONTENDERS, Contender, Job, Setting
from benchmarks.wires import MODEL_INFER, open_inference_request

_CONTENDERS = ("inferd", "triton")
#: Where each model runs unless the user says otherwise: a core each for server and load, or all shared.
_PLACEMENTS = {"small": Placement.PINNED, "mid": Placement.UNPINNED}
_FACTORS = (2.0, 4.0)
_DEADLINES_MS = (None, 500.0)
_CONNECTIONS = (1, 8)
_CLOSED = (64, 128)
_CAPACITY_S = 3.0
_SECONDS = 6.0
_HEALTH = "/grpc.health.v1.Health/Check"
_MIB = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Overload:
    """One load on one server. ``share`` is of the capacity, answered within a second; the latencies are of OK answers.

    ``outcomes`` says what became of the others; ``health_max_ms`` is the slowest probe. ``max_held_back`` waited in
    the client, because the server allows only so many at a time on a connection.
    """

    server: str
    model: str
    placement: str
    round: int
    capacity_per_s: float
    factor: float
    deadline_ms: float | None
    connections: int
    share: float
    p50_ms: float
    p99_ms: float
    outcomes: dict[str, int]
    max_in_flight: int
    max_held_back: int
    first_failure: str
    health_max_ms: float
    health_failures: int
    rss_before_mib: float
    rss_after_mib: float
    client_cores: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Case:
    contender: Contender
    model: Model
    placement: Placement
    round: int
    connections: tuple[int, ...]


def measure(case: _Case) -> Iterator[Overload]:
    """Start a server, check it, measure its capacity and then overload it in every way."""
    with TemporaryDirectory() as name:
        folder, port, wire = Path(name), free_port(), case.contender.wire
        setting = None if case.contender.ours else Setting(case.placement.server_cores, 1)
        launch = case.contender.launch(Job(model=case.model, setting=setting, port=port, folder=folder))
        with Server([*case.placement.server, *launch.command], launch.environment, folder) as server:
            session, first = check.load(case.model), case.model.rows()[0]
            server.wait_ready(lambda: check.check_one(wire, case.model, port, session, first))
            check.check_many(wire, case.model, port)
            capacity = _capacity(case, port)
            for factor in _FACTORS:
                for deadline_ms in _DEADLINES_MS:
                    for connections in case.connections:
                        yield _overload(case, server, port, capacity, factor, deadline_ms, connections)


def _capacity(case: _Case, port: int) -> float:
    """Return the most that a closed loop gets answered."""
    return max(
        grpcload.run(
            _load(case, port, closed=calls, connections=1, duration_s=_CAPACITY_S), cpu=case.placement.load_core
        ).load.ok_per_s
        for calls in _CLOSED
    )


def _load(
    case: _Case,
    port: int,
    *,
    connections: int,
    duration_s: float,
    closed: int | None = None,
    poisson_per_s: float | None = None,
    deadline_ms: float | None = None,
) -> grpcload.Load:
    return grpcload.Load(
        target=f"127.0.0.1:{port}",
        method=MODEL_INFER,
        message=open_inference_request(case.model, case.model.rows()[0]).SerializeToString(),
        closed=closed,
        poisson_per_s=poisson_per_s,
        seed=case.round,
        connections=connections,
        duration_s=duration_s,
        deadline_ms=deadline_ms,
        probe_method=None if closed else _HEALTH,
    )


def _overload(
    case: _Case,
    server: Server,
    port: int,
    capacity: float,
    factor: float,
    deadline_ms: float | None,
    connections: int,
) -> Overload:
    before = server.rss_bytes()
    load = _load(
        case,
        port,
        connections=connections,
        duration_s=_SECONDS,
        poisson_per_s=capacity * factor,
        deadline_ms=deadline_ms,
    )
    result = grpcload.run(load, cpu=case.placement.load_core)
    tally, probe = result.load, result.probe
    assert probe is not None
    others = {"bad": tally.bad_answers, "expired": tally.expired, "transport": tally.failed_transport}
    outcomes = {**tally.statuses, **others, "unanswered": tally.unanswered}
    return Overload(
        server=case.contender.name,
        model=case.model.name,
        placement=case.placement,
        round=case.round,
        capacity_per_s=capacity,
        factor=factor,
        deadline_ms=deadline_ms,
        connections=connections,
        share=tally.ok_within_1s_per_s / capacity,
        p50_ms=tally.latency_ms.p50,
        p99_ms=tally.latency_ms.p99,
        outcomes={name: count for name, count in outcomes.items() if count and name != "OK"},
        max_in_flight=tally.max_in_flight,
        max_held_back=tally.max_held_back,
        first_failure=tally.first_failure,
        health_max_ms=probe.latency_ms.max,
        health_failures=probe.requests - probe.ok,
        rss_before_mib=before / _MIB,
        rss_after_mib=server.rss_bytes() / _MIB,
        client_cores=result.client_cpu_s / (load.duration_s + load.warmup_s),
    )


def show(measured: list[Overload], console: Console) -> None:
    """Print a line for each."""
    table = Table(
        "model", "server", "capacity/s", "load", "deadline", "conns", "in 1 s", "p50 ms", "p99 ms", "held back",
        "health max ms", "RSS MiB", "client cores", "not answered OK",
    )  # fmt: skip
    order = sorted(measured, key=lambda one: (one.model, one.server, one.factor, one.deadline_ms or 0, one.connections))
    for one in order:
        table.add_row(
            one.model,
            one.server,
            f"{one.capacity_per_s:,.0f}",
            f"{one.factor:g}x",
            f"{one.deadline_ms:g} ms" if one.deadline_ms else "",
            str(one.connections),
            f"{one.share:.0%}",
            f"{one.p50_ms:.0f}",
            f"{one.p99_ms:.0f}",
            str(one.max_held_back),
            f"{one.health_max_ms:.0f}" + (f" ({one.health_failures} failed)" if one.health_failures else ""),
            f"{one.rss_before_mib:,.0f} to {one.rss_after_mib:,.0f}",
            f"{one.client_cores:.2f}",
            ", ".join(f"{name} {count}" for name, count in one.outcomes.items()),
        )
    console.print(table)


def main() -> None:
    """Measure, print, and write the results down."""
    parser = options.parser(__doc__, "overload")
    options.add_placement_and_rounds(parser)
    parser.add_argument("--peer", action="append", choices=_CONTENDERS, help="may be repeated; both if left out")
    help_connections = f"of the clients, over which the load is spread; may be repeated; {_CONNECTIONS} if left out"
    parser.add_argument("--connections", action="append", type=int, help=help_connections)
    chosen = parser.parse_args()
    console, measured = report.console(), list[Overload]()
    try:
        for case in _cases(chosen):
            for one in measure(case):
                measured.append(one)
                text = f"{one.model}  {one.server}  {one.factor:g} times {one.capacity_per_s:,.0f}/s, deadline"
                text += f" {one.deadline_ms} ms, {one.connections} connections: {one.share:.0%} within a second"
                console.print(f"round {one.round}  {text}", highlight=False)
    finally:
        show(measured, console)
        report.write_json(chosen.name, {"machine": machine.describe(), "measured": [*map(asdict, measured)]}, console)


def _cases(chosen: argparse.Namespace) -> Iterator[_Case]:
    for number in range(1, chosen.rounds + 1):
        for model in options.models(chosen, _PLACEMENTS):
            own = _PLACEMENTS.get(model.name, Placement.UNPINNED)
            for placement in options.placements(chosen) if chosen.placement else [own]:
                for name in chosen.peer or _CONTENDERS:
                    yield _Case(
                        contender=CONTENDERS[name],
                        model=model,
                        placement=placement,
                        round=number,
                        connections=tuple(chosen.connections or _CONNECTIONS),
                    )


if __name__ == "__main__":
    main()

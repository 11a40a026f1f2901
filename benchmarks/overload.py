"""Goodput under overload.

The capacity of a server is measured with a closed loop. Then requests arrive at random times, at two and four times
that rate, while its health is probed on a separate connection, inferd's over HTTP too: with and without deadlines, over
one connection and over many, and with clients that queue requests beyond the server's limit of streams, or fail them at
once. A goodput of 90 % means that nine tenths of the capacity were answered within a second. Servers run with their
defaults, or with ``--setting``.
"""

import argparse
from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import product

from benchmarks import machine, options, report
from benchmarks.http_probe import HttpProbe, http_port
from benchmarks.load import grpcload
from benchmarks.models import Model
from benchmarks.overload_table import Overload, Way, show
from benchmarks.process import Placement, Server
from benchmarks.servers import CONTENDERS, Contender, Setting
from benchmarks.serving import own_setting, serving
from benchmarks.wires import MODEL_INFER, open_inference_request

_CONTENDERS = ("inferd", "triton")
#: Default placement of each model: a core each for server and load, or shared cores.
_PLACEMENTS = {"small": Placement.PINNED, "mid": Placement.UNPINNED}
_FACTORS = (2.0, 4.0)
_DEADLINES_MS = (None, 500.0)
_CONNECTIONS = (1, 16)
_CLOSED = (64, 128)
_CAPACITY_S = 2.0
_SECONDS = 3.0
_MOMENT_S = 0.05
_HEALTH = "/grpc.health.v1.Health/Check"
_MIB = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class _Case:
    contender: Contender
    model: Model
    placement: Placement
    setting: Setting | None
    round: int
    ways: tuple[Way, ...]


def measure(case: _Case) -> Iterator[Overload]:
    """Measure a server's capacity, then overload it in every way; restart it if it does not recover."""
    capacity, left = 0.0, deque(case.ways)
    while left:
        with serving(case.contender, case.model, case.placement, case.setting, overloaded=True) as at:
            capacity = capacity or _capacity(case, at.port)
            well = True
            while well and left:
                one = _overload(case, at.server, at.port, capacity, left.popleft())
                yield one
                well = "unanswered" not in one.outcomes and bool(left) and _answers(case, at.port)


def _answers(case: _Case, port: int) -> bool:
    """Return whether the server answers within seconds: it has not crashed, and has no backlog."""
    load = grpcload.Load(
        target=f"127.0.0.1:{port}",
        method=MODEL_INFER,
        message=_message(case),
        closed=1,
        duration_s=_MOMENT_S,
        warmup_s=0,
    )
    try:
        return grpcload.run(load, cpu=case.placement.load_core).load.ok > 0
    except grpcload.GrpcloadError:
        return False


def _capacity(case: _Case, port: int) -> float:
    """Return the maximum throughput of a closed loop."""
    message = _message(case)
    loads = (
        grpcload.Load(
            target=f"127.0.0.1:{port}", method=MODEL_INFER, message=message, closed=calls, duration_s=_CAPACITY_S
        )
        for calls in _CLOSED
    )
    return max(grpcload.run(load, cpu=case.placement.load_core).load.ok_per_s for load in loads)


def _message(case: _Case) -> bytes:
    return open_inference_request(case.model, case.model.rows()[0]).SerializeToString()


def _overload(case: _Case, server: Server, port: int, capacity: float, way: Way) -> Overload:
    before = server.rss_bytes()
    load = grpcload.Load(
        target=f"127.0.0.1:{port}",
        method=MODEL_INFER,
        message=_message(case),
        poisson_per_s=capacity * way.factor,
        seed=case.round,
        connections=way.connections,
        duration_s=_SECONDS,
        deadline_ms=way.deadline_ms,
        fail_fast=way.fail_fast,
        probe_method=_HEALTH,
    )
    http = HttpProbe(http_port(server, port)) if case.contender.ours else None
    with http or nullcontext():
        result = grpcload.run(load, cpu=case.placement.load_core)
    tally, probe = result.load, result.probe
    assert probe is not None
    return Overload(
        server=case.contender.name,
        model=case.model.name,
        placement=case.placement,
        round=case.round,
        capacity_per_s=capacity,
        way=way,
        requests=tally.requests,
        share=tally.ok_within_1s_per_s / capacity,
        p50_ms=tally.latency_ms.p50,
        p99_ms=tally.latency_ms.p99,
        outcomes=_outcomes(tally),
        ended_with=server.ended_with,
        max_in_flight=tally.max_in_flight,
        max_held_back=tally.max_held_back,
        first_failure=tally.first_failure,
        health_p99_ms=probe.latency_ms.p99,
        health_max_ms=probe.latency_ms.max,
        health_failures=probe.requests - probe.ok,
        http_p99_ms=http.quantile_ms(0.99) if http else None,
        http_max_ms=http.quantile_ms(1.0) if http else None,
        http_failures=http.failures if http else 0,
        rss_before_mib=before / _MIB,
        rss_after_mib=server.rss_bytes() / _MIB,
        client_cores=result.client_cpu_s / load.duration_s,
    )


def _outcomes(tally: grpcload.Tally) -> dict[str, int]:
    others = {
        "refused by the client": tally.refused_by_client,
        "expired": tally.expired,
        "bad answer": tally.bad_answers,
        "lost": tally.failed_transport,
        "unanswered": tally.unanswered,
    }
    return {name: count for name, count in {**tally.statuses, **others}.items() if count and name != "OK"}


def main() -> None:
    """Measure, print, and write the results."""
    chosen = _choose()
    console, measured = report.console(), list[Overload]()
    try:
        for case in _cases(chosen):
            if case.contender.missing:
                console.print(f"{case.contender.name}: {case.contender.missing}", style="red", markup=False)
                continue
            for one in measure(case):
                measured.append(one)
                text = f"{one.model}  {one.server}  {one.way} of {one.capacity_per_s:,.0f}/s: {one.share:.0%}"
                console.print(f"round {one.round}  {text} within a second", highlight=False)
    finally:
        show(measured, console)
        report.write_json(chosen.name, {"machine": machine.describe(), "measured": [*map(asdict, measured)]}, console)


def _choose() -> argparse.Namespace:
    parser = options.parser(__doc__, "overload")
    options.add_placement_and_rounds(parser, rounds=1)
    add = parser.add_argument
    add("--server", action="append", choices=_CONTENDERS, help="may be repeated; default both")
    help_connections = f"number of client connections; may be repeated; default {_CONNECTIONS}"
    add("--connections", action="append", type=int, help=help_connections)
    help_setting = "threads of a run, and runs at a time, such as 1x2; default that of each server"
    add("--setting", type=Setting.parse, metavar="THREADSxINSTANCES", help=help_setting)
    add("--quick", action="store_true", help=f"only {_CONNECTIONS[-1]} connections whose clients fail fast")
    return parser.parse_args()


def _ways(chosen: argparse.Namespace, contender: Contender) -> tuple[Way, ...]:
    connections = chosen.connections or (_CONNECTIONS[-1:] if chosen.quick else _CONNECTIONS)
    # Triton allows any number of streams, so clients never queue.
    clients = (False, True) if contender.ours and not chosen.quick else (True,)
    return tuple(
        Way(factor=factor, deadline_ms=deadline_ms, connections=count, fail_fast=fail_fast)
        for fail_fast, count, factor, deadline_ms in product(clients, connections, _FACTORS, _DEADLINES_MS)
    )


def _cases(chosen: argparse.Namespace) -> Iterator[_Case]:
    for number in range(1, chosen.rounds + 1):
        for model in options.models(chosen, _PLACEMENTS):
            own = _PLACEMENTS.get(model.name, Placement.UNPINNED)
            for placement in options.placements(chosen) if chosen.placement else [own]:
                for contender in (CONTENDERS[name] for name in chosen.server or _CONTENDERS):
                    yield _Case(
                        contender=contender,
                        model=model,
                        placement=placement,
                        setting=chosen.setting or own_setting(contender, placement),
                        round=number,
                        ways=_ways(chosen, contender),
                    )


if __name__ == "__main__":
    main()

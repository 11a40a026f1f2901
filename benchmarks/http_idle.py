"""What an idle port of HTTP costs gRPC: processor time per request with the port and without, measured in turn."""

from dataclasses import asdict

from benchmarks import machine, options, report, trees
from benchmarks.process import Placement
from benchmarks.rounds import Outcome, Plan, measure
from benchmarks.servers import CONTENDERS, Contender, launch_inferd, launch_over_http
from benchmarks.wires import OpenInferenceByGrpcload

_ROUNDS = 5
_SECONDS = 4.0
_IN_FLIGHT = 64


def main() -> None:
    """Measure, print, and write the results."""
    parser = options.parser(__doc__, "http_idle")
    options.add_rounds(parser, rounds=_ROUNDS)
    parser.add_argument("--seconds", type=float, default=_SECONDS, help=f"of load in a round; default {_SECONDS:g}")
    chosen = parser.parse_args()
    wire, needs = OpenInferenceByGrpcload(seconds=chosen.seconds), CONTENDERS[report.OURS].needs
    plan = Plan(
        contenders=[
            Contender(name=trees.OLD, wire=wire, launch=launch_inferd, needs=needs),
            Contender(name=trees.NEW, wire=wire, launch=launch_over_http, needs=needs),
        ],
        models=options.models(chosen, ["small"]),
        settings=[None],
        placements=[Placement.PINNED],
        concurrencies=[_IN_FLIGHT],
        rounds=chosen.rounds,
    )
    console, outcome = report.console(), Outcome()
    try:
        measure(plan, console, outcome)
    finally:
        found = trees.pairs(outcome.samples)
        trees.show(found, console)
        content = {"machine": machine.describe(), "pairs": [*map(asdict, found)], **asdict(outcome)}
        report.write_json(chosen.name, content, console)


if __name__ == "__main__":
    main()

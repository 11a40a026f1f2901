"""Compare inferd with other servers, in turn, on the same models and cores.

Every server's answers are checked before it is measured. Writes a table, and JSON and charts under
``benchmarks/results/``. ``benchmarks/peers/NAME/setup.sh`` installs a peer; those that are not installed are reported.
"""

from benchmarks import options, report
from benchmarks.rounds import CONCURRENCIES, Plan
from benchmarks.servers import CONTENDERS, Setting, by_grpcload


def main() -> None:
    """Measure, print, and write the results."""
    parser = options.parser(__doc__, "peers")
    options.add_placement_and_rounds(parser)
    options.add_concurrency(parser)
    parser.add_argument("--peer", action="append", choices=list(CONTENDERS), help="may be repeated; default all")
    help_setting = "THREADSxINSTANCES, may be repeated; 1x1, or for large models all cores by threads and by instances"
    parser.add_argument("--setting", action="append", type=Setting.parse, help=help_setting)
    help_load = "load generator for the servers that perf_analyzer supports; grpcload costs less"
    parser.add_argument("--load", choices=["perf_analyzer", "grpcload"], default="perf_analyzer", help=help_load)
    chosen = parser.parse_args()
    contenders = [CONTENDERS[name] for name in chosen.peer or CONTENDERS]
    if chosen.load == "grpcload":
        contenders = [by_grpcload(contender) for contender in contenders]
    plan = Plan(
        contenders=contenders,
        models=options.models(chosen, ["small", "mid", "identity"]),
        settings=chosen.setting or [],
        placements=options.placements(chosen),
        concurrencies=chosen.concurrency or CONCURRENCIES,
        rounds=chosen.rounds,
    )
    report.measured(plan, chosen.name)


if __name__ == "__main__":
    main()

"""Measure inferd alone: each model with default settings, unary and streamed, compared with the model in process.

Access log and metrics are on. Writes a table, and JSON and charts under ``benchmarks/results/``.
"""

from benchmarks import options, report
from benchmarks.models import MODELS
from benchmarks.rounds import CONCURRENCIES, Plan
from benchmarks.servers import CONTENDERS

#: Without FP16, which is for GPUs and measured there.
_MODELS = tuple(name for name in MODELS if not name.endswith("fp16"))


def main() -> None:
    """Measure, print, and write the results."""
    parser = options.parser(__doc__, "served")
    options.add_placement_and_rounds(parser)
    options.add_concurrency(parser)
    chosen = parser.parse_args()
    plan = Plan(
        contenders=[contender for contender in CONTENDERS.values() if contender.ours],
        models=options.models(chosen, _MODELS),
        settings=[None],
        placements=options.placements(chosen),
        concurrencies=chosen.concurrency or CONCURRENCIES,
        rounds=chosen.rounds,
    )
    report.measured(plan, chosen.name)


if __name__ == "__main__":
    main()

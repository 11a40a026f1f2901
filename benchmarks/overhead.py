"""Overhead of metrics, access log, authentication and tracing: inferd with more and more of them, in turn.

Each variant adds to the one before: metrics, the access log, verification of tokens, and traces of one call in a
hundred. All get the same calls, with a token, except the last, which shows the cost of a token's header that is not
verified. Throughput is compared within each round with that of the first variant, which has none of them.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmarks import machine, options, report
from benchmarks.models import ROOT, Model
from benchmarks.process import Meter, Placement, free_port
from benchmarks.servers import Contender, Job, Launch, launch_inferd
from benchmarks.serving import serving
from benchmarks.wires import OpenInferenceByGrpcload

_BARE = "nothing"
_CONCURRENCY = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One configuration: the settings that differ from the defaults, and the metadata that callers send."""

    name: str
    environment: Mapping[str, str]
    metadata: Mapping[str, str]
    counting: bool = True

    @property
    def contender(self) -> Contender:
        """The server and its protocol."""
        return Contender(
            name=self.name,
            wire=OpenInferenceByGrpcload(metadata=self.metadata),
            launch=launch_inferd if self.counting else _launch_unmetered,
            needs=Path(sys.executable),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One measurement. ``of_bare`` is its throughput relative to the bare server's in the same round."""

    model: str
    placement: str
    variant: str
    round: int
    requests_per_s: float
    of_bare: float
    p50_ms: float
    p99_ms: float
    server_cpu_us: float


def _launch_unmetered(job: Job) -> Launch:
    launch = launch_inferd(job)
    command = ["benchmarks.baselines.unmetered" if part == "inferd" else part for part in launch.command]
    return Launch(command=command, environment=launch.environment)


@contextmanager
def variants() -> Iterator[Sequence[Variant]]:
    """Yield the variants, with a file of tokens and a receiver of traces that exist until the context is left."""
    with TemporaryDirectory() as name:
        tokens, port = Path(name) / "tokens.yaml", free_port()
        command = [sys.executable, "-m", "inferd", "token", "new", "bench", "--file", str(tokens)]
        token = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()
        sink = subprocess.Popen([sys.executable, "-m", "benchmarks.otlp_sink", str(port)], cwd=ROOT)
        quiet = {"INFERD_LOG__ACCESS": "false"}
        guarded = {"INFERD_SECURITY__TOKENS_FILE": str(tokens)}
        traced = {"INFERD_TRACING__ENDPOINT": f"http://127.0.0.1:{port}", "INFERD_TRACING__SAMPLING_RATIO": "0.01"}
        bearer = {"authorization": f"Bearer {token}"}
        try:
            yield (
                Variant(name=_BARE, environment=quiet, metadata=bearer, counting=False),
                Variant(name="metrics", environment=quiet, metadata=bearer),
                Variant(name="+ access log", environment={}, metadata=bearer),
                Variant(name="+ tokens", environment=guarded, metadata=bearer),
                Variant(name="+ traces of 1 %", environment={**guarded, **traced}, metadata=bearer),
                # The cost of the token's header in gRPC itself.
                Variant(name="nothing, and no header with a token", environment=quiet, metadata={}, counting=False),
            )
        finally:
            sink.terminate()
            sink.wait()


def measure(
    chosen: Sequence[Variant], model: Model, placement: Placement, concurrency: int, number: int, console: Console
) -> Iterator[Sample]:
    """Measure all variants once."""
    bare_per_s = 0.0
    # In alternating order, so that none is always measured after the same other.
    for variant in chosen if number % 2 else [chosen[0], *reversed(chosen[1:])]:
        contender = variant.contender
        with (
            serving(contender, model, placement, None, environment=variant.environment) as at,
            Meter(at.server) as meter,
        ):
            result = contender.wire.load(model, at.port, concurrency, placement, at.folder)
        bare_per_s = bare_per_s or result.requests_per_s
        sample = Sample(
            model=model.name,
            placement=placement,
            variant=variant.name,
            round=number,
            requests_per_s=result.requests_per_s,
            of_bare=result.requests_per_s / bare_per_s,
            p50_ms=result.p50_ms,
            p99_ms=result.p99_ms,
            server_cpu_us=meter.cores_used / max(result.requests_per_s, 1e-9) * 1e6,
        )
        console.print(
            f"round {number}  {model.name}  {placement}  {variant.name}: {sample.requests_per_s:,.0f}/s, "
            f"{sample.of_bare:.3f} of the bare server",
            highlight=False,
        )
        yield sample


def show(samples: Sequence[Sample], console: Console) -> list[dict[str, object]]:
    """Print the medians of the rounds and return them."""
    table = Table("model", "placement", "with", "requests/s", "of bare", "p50 ms", "p99 ms", "CPU µs")
    groups: dict[tuple[str, str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.model, sample.placement, sample.variant), []).append(sample)
    medians: list[dict[str, object]] = []
    for (model, placement, variant), group in groups.items():
        figures = {
            name: median(getattr(sample, name) for sample in group)
            for name in ("requests_per_s", "of_bare", "p50_ms", "p99_ms", "server_cpu_us")
        }
        medians.append({"model": model, "placement": placement, "variant": variant, "rounds": len(group), **figures})
        per_s, of_bare, *others = figures.values()
        table.add_row(model, placement, variant, f"{per_s:,.0f}", f"{of_bare:.3f}", *(f"{each:.2f}" for each in others))
    console.print(table)
    return medians


def main() -> None:
    """Measure, print, and write the results."""
    parser = options.parser(__doc__, "overhead")
    options.add_placement_and_rounds(parser, rounds=5)
    parser.add_argument(
        "--concurrency", type=int, default=_CONCURRENCY, help=f"calls in flight; default {_CONCURRENCY}"
    )
    chosen = parser.parse_args()
    console = report.console()
    with variants() as all_variants:
        samples = [
            sample
            for number in range(1, chosen.rounds + 1)
            for model in options.models(chosen, ["small"])
            for placement in options.placements(chosen)
            for sample in measure(all_variants, model, placement, chosen.concurrency, number, console)
        ]
    medians = show(samples, console)
    report.write_json(
        chosen.name, {"machine": machine.describe(), "medians": medians, "rounds": [*map(asdict, samples)]}, console
    )


if __name__ == "__main__":
    main()

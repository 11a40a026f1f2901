"""Inference over HTTP compared with an echo of the library below it, and with other servers.

The servers are measured in turn, each on one core with the load on the other, and the ratios are of the same round. The
echo reads the same requests and answers as many bytes as inferd, so its ratio says what serving adds to the library.
``--add`` keeps the earlier results, so that rounds can be measured one by one.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import machine, options, report
from benchmarks.models import Model
from benchmarks.process import Meter, Placement
from benchmarks.servers import CONTENDERS, Contender, Setting
from benchmarks.serving import serving

_OURS = "inferd-http"
_PEERS = (_OURS, "echo", "triton-http", "kserve-http", "mlserver-http", "mosec", "litserve", "bentoml", "ray-serve")
#: Connections: small requests wait for the server, large ones for memory.
_CONNECTIONS = {"small": 64, "crop": 64}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One server in one round. ``cpu_us`` is the processor time per request of all its processes."""

    model: str
    connections: int
    server: str
    round: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    cpu_us: float


def measure(contender: Contender, model: Model, connections: int, number: int) -> Sample:
    """Measure one server."""
    placement = Placement.PINNED
    setting = None if contender.ours else Setting(1, 1)
    with serving(contender, model, placement, setting) as at, Meter(at.server) as meter:
        result = contender.wire.load(model, at.port, connections, placement, at.folder)
    return Sample(
        model=model.name,
        connections=connections,
        server=contender.name,
        round=number,
        requests_per_s=result.requests_per_s,
        p50_ms=result.p50_ms,
        p99_ms=result.p99_ms,
        errors=result.errors,
        cpu_us=meter.cores_used / max(result.requests_per_s, 1e-9) * 1e6,
    )


def ratios(samples: Sequence[Sample], model: str, server: str) -> list[float]:
    """Return inferd's throughput relative to that of ``server``, by round."""
    by_round: dict[int, dict[str, float]] = defaultdict(dict)
    for sample in samples:
        if sample.model == model:
            by_round[sample.round][sample.server] = sample.requests_per_s
    return [each[_OURS] / each[server] for each in by_round.values() if _OURS in each and server in each]


def show(samples: Sequence[Sample], console: Console) -> None:
    """Print the medians of each model and server."""
    table = Table("model", "server", "rounds", "requests/s", "p50 ms", "p99 ms", "CPU µs", "errors", "inferd / it")
    groups: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.model, sample.server].append(sample)
    for (model, server), group in groups.items():
        table.add_row(
            model,
            server,
            str(len(group)),
            f"{median(one.requests_per_s for one in group):,.0f}",
            f"{median(one.p50_ms for one in group):.2f}",
            f"{median(one.p99_ms for one in group):.2f}",
            f"{median(one.cpu_us for one in group):,.0f}",
            str(sum(one.errors for one in group)),
            f"{median(found):.2f}" if (found := ratios(samples, model, server)) else "",
        )
    console.print(table)


def _earlier(name: str) -> Iterator[Sample]:
    with suppress(FileNotFoundError):
        content: dict[str, Any] = json.loads((report.RESULTS / f"{name}.json").read_text())
        yield from (Sample(**sample) for sample in content["samples"])


def main() -> None:
    """Measure, print, and write the results."""
    parser = options.parser(__doc__, "http")
    options.add_rounds(parser)
    parser.add_argument("--peer", action="append", choices=_PEERS, help="may be repeated; default all")
    parser.add_argument("--add", action="store_true", help="keep the earlier results of that name")
    chosen = parser.parse_args()
    console = report.console()
    samples = [*_earlier(chosen.name)] if chosen.add else []
    first = 1 + max((sample.round for sample in samples), default=0)
    contenders = [CONTENDERS[name] for name in chosen.peer or _PEERS]
    failures: dict[str, str] = {}
    try:
        for number in range(first, first + chosen.rounds):
            for model in options.models(chosen, _CONNECTIONS):
                for contender in contenders if number % 2 else reversed(contenders):
                    if contender.missing or not contender.wire.takes(model) or contender.name in failures:
                        continue
                    try:
                        sample = measure(contender, model, _CONNECTIONS[model.name], number)
                    except Exception as error:  # noqa: BLE001  the others must be measured
                        failures[contender.name] = f"{type(error).__name__}: {error}"
                        console.print(contender.name, failures[contender.name][-500:], style="red", markup=False)
                        continue
                    samples.append(sample)
                    speed = f"{sample.requests_per_s:,.0f}/s, p99 {sample.p99_ms:.2f} ms, {sample.errors} errors"
                    console.print(f"round {number}  {model.name}  {contender.name}: {speed}", highlight=False)
    finally:
        show(samples, console)
        medians = {
            f"{model} {server}": median(found)
            for model, server in dict.fromkeys((one.model, one.server) for one in samples)
            if (found := ratios(samples, model, server))
        }
        content = {"machine": machine.describe(), "ours_over_it": medians, "samples": [*map(asdict, samples)]}
        report.write_json(chosen.name, content, console)


if __name__ == "__main__":
    main()

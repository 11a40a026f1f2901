"""Instances that follow the load, beside fixed numbers of them: throughput, latency, and how many there were.

Each setting gets the same closed loop in turn, from a load generator on the same cores. With one thread a run, two
instances use two cores; with a run on all cores a second one should be tried and given up.
"""

import json
import subprocess
import sys
import time
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from benchmarks import machine, options, report
from benchmarks.models import Model
from benchmarks.process import Server, free_port

_MODELS = ("mid",)
_FOLLOWING = '{"min": 1, "max": 2}'
_INSTANCES = ("1", _FOLLOWING, "2")
#: Threads of a run: one, or the default.
_THREADS = (1, 0)
_IN_FLIGHT = (16, 64)
_BIN = Path(sys.executable).parent / "inferd"
#: The longest time after the load in which idle instances end.
_IDLE_S = 150.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one setting did.

    ``now`` is the number of instances at the end of the load, ``changes`` why it changed, and ``idle_after_s`` how long
    after that there was one again, if that was waited for.
    """

    model: str
    threads: int
    instances: str
    in_flight: int
    rows_per_s: float
    p50_ms: float
    p99_ms: float
    now: int
    changes: dict[str, int]
    idle_after_s: float | None


def _measure(
    model: Model, threads: int, instances: str, in_flight: int, seconds: float, *, until_idle: bool
) -> Outcome:
    port, metrics_port = free_port(), free_port()
    address, metrics = f"127.0.0.1:{port}", f"http://127.0.0.1:{metrics_port}/metrics"
    command = [_BIN, "serve", f"{model.name}={model.path}", "--grpc-port", port, "--http-port", "none"]
    command += ["--metrics-port", metrics_port]
    environment = {"INFERD_RUNTIME__INTRA_OP_THREADS": str(threads), "INFERD_BATCHING__INSTANCES": instances}
    with TemporaryDirectory() as folder, Server([*map(str, command)], environment, Path(folder)) as server:
        server.wait_ready(lambda: _require_loaded(metrics))
        load = ["--concurrency", in_flight, "--duration", seconds, "--warmup", seconds / 4, "--json"]
        text = subprocess.run(
            [str(each) for each in (_BIN, "bench", address, model.name, *load)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        found = json.loads(text)["steps"][0]
        now, changes = _read(metrics)
        return Outcome(
            model=model.name,
            threads=threads,
            instances=instances,
            in_flight=in_flight,
            rows_per_s=found["rows_per_s"],
            p50_ms=found["latency_ms"]["p50"],
            p99_ms=found["latency_ms"]["p99"],
            now=now,
            changes=changes,
            idle_after_s=_idle_after_s(metrics) if until_idle and now > 1 else None,
        )


def _require_loaded(metrics: str) -> None:
    if not _read(metrics)[0]:
        msg = "the model is being loaded"
        raise ValueError(msg)


def _idle_after_s(metrics: str) -> float:
    """Wait until there is one instance, and return how long that took."""
    began = time.monotonic()
    while _read(metrics)[0] > 1 and time.monotonic() < began + _IDLE_S:
        time.sleep(1.0)
    return time.monotonic() - began


def _read(metrics: str) -> tuple[int, dict[str, int]]:
    """Return how many instances there are, and their changes."""
    with urllib.request.urlopen(metrics, timeout=5) as response:
        families = list(text_string_to_metric_families(response.read().decode()))
    samples = [sample for family in families for sample in family.samples]
    (now,) = [int(sample.value) for sample in samples if sample.name == "inferd_model_instances"]
    changes = [sample for sample in samples if sample.name == "inferd_instance_changes_total" and sample.value]
    return now, {sample.labels["reason"]: int(sample.value) for sample in changes}


def _show(outcomes: list[Outcome], console: Console) -> None:
    table = Table("model", "threads a run", "instances", "in flight", "rows/s", "of one", "p50 ms", "p99 ms", "now")
    for key in dict.fromkeys((one.model, one.threads, one.instances, one.in_flight) for one in outcomes):
        same = [one for one in outcomes if (one.model, one.threads, one.instances, one.in_flight) == key]
        ones = [one for one in outcomes if (one.model, one.threads, one.in_flight) == (key[0], key[1], key[3])]
        first = [one.rows_per_s for one in ones if one.instances == _INSTANCES[0]]
        # Each round is compared in itself, because the machine may be faster or slower in another one.
        gain = median(one.rows_per_s / alone for one, alone in zip(same, first, strict=True))
        table.add_row(
            key[0],
            str(key[1] or "all cores"),
            key[2],
            str(key[3]),
            f"{median(one.rows_per_s for one in same):.0f}",
            f"{gain:.2f}",
            f"{median(one.p50_ms for one in same):.1f}",
            f"{median(one.p99_ms for one in same):.1f}",
            ", ".join(f"{one.now} {one.changes or ''}".strip() for one in same),
        )
    console.print(table)


def main() -> None:
    """Measure each setting in each round."""
    parser = options.parser(__doc__, "instances")
    options.add_rounds(parser)
    options.add_concurrency(parser, default=_IN_FLIGHT)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--until-idle", action="store_true", help="wait for idle instances to end")
    chosen = parser.parse_args()
    console = report.console()
    outcomes: list[Outcome] = []
    for model in options.models(chosen, _MODELS):
        for _ in range(chosen.rounds):
            for threads in _THREADS:
                for in_flight in chosen.concurrency or _IN_FLIGHT:
                    for instances in _INSTANCES:
                        until_idle = chosen.until_idle and instances == _FOLLOWING
                        outcomes.append(
                            _measure(model, threads, instances, in_flight, chosen.seconds, until_idle=until_idle)
                        )
    _show(outcomes, console)
    report.write_json(
        chosen.name, {"machine": machine.describe(), "outcomes": [asdict(one) for one in outcomes]}, console
    )


if __name__ == "__main__":
    main()

"""Resident set under full load, after 10 seconds and at the end, and processor time of an idle server."""

import threading
import time
from dataclasses import asdict, dataclass
from typing import Self

from rich.console import Console
from rich.table import Table

from benchmarks import machine, options, perf_analyzer, report
from benchmarks.models import Model
from benchmarks.process import Placement, Server
from benchmarks.servers import CONTENDERS, Contender
from benchmarks.serving import serving

_CONTENDERS = ("inferd", "inferd-stream")
_MODELS = ("small", "identity")
_CONCURRENCY = 64
_EARLY_S = 10.0
_IDLE_S = 10.0
_SAMPLE_EVERY_S = 1.0
_MIB = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """``idle_cores`` is before the load, in processor seconds per second; ``rss_mib`` is by seconds of load."""

    server: str
    model: str
    seconds: float
    requests_per_s: float
    idle_cores: float
    early_rss_mib: float
    late_rss_mib: float
    rss_mib: dict[float, float]


def measure(contender: Contender, model: Model, seconds: float) -> Memory:
    """Start a server, measure it idle, and load it for ``seconds``."""
    with serving(contender, model, Placement.UNPINNED, None) as at:
        before = at.server.cpu_s()
        time.sleep(_IDLE_S)
        idle_cores = (at.server.cpu_s() - before) / _IDLE_S
        with _Sampler(at.server) as sampler:
            result = perf_analyzer.measure(
                model,
                at.port,
                _CONCURRENCY,
                Placement.UNPINNED,
                at.folder,
                streaming=contender.name.endswith("-stream"),
                seconds=seconds,
            )
    return Memory(
        server=contender.name,
        model=model.name,
        seconds=seconds,
        requests_per_s=result.requests_per_s,
        idle_cores=idle_cores,
        early_rss_mib=next(rss for at, rss in sampler.rss_mib.items() if at >= min(_EARLY_S, seconds / 4)),
        late_rss_mib=sampler.last,
        rss_mib=sampler.rss_mib,
    )


class _Sampler:
    """Samples a server's resident set every second while the context is open."""

    def __init__(self, server: Server) -> None:
        self.rss_mib: dict[float, float] = {}
        self._server = server
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    @property
    def last(self) -> float:
        return next(reversed(self.rss_mib.values()))

    def _sample(self) -> None:
        started = time.monotonic()
        while not self._stopped.wait(_SAMPLE_EVERY_S):
            self.rss_mib[round(time.monotonic() - started, 1)] = self._server.rss_bytes() / _MIB


def show(measured: list[Memory], console: Console) -> None:
    """Print a row for each."""
    table = Table("server", "model", "requests/s", "idle cores", "RSS MiB early", "late", "growth", "seconds")
    for one in measured:
        growth = one.late_rss_mib / one.early_rss_mib - 1
        early, late = f"{one.early_rss_mib:,.1f}", f"{one.late_rss_mib:,.1f}"
        numbers = (f"{one.requests_per_s:,.0f}", f"{one.idle_cores:.2%}", early, late, f"{growth:+.1%}")
        table.add_row(one.server, one.model, *numbers, f"{one.seconds:g}")
    console.print(table)


def main() -> None:
    """Measure, print, and write the results."""
    parser = options.parser(__doc__, "memory")
    parser.add_argument("--peer", action="append", choices=list(CONTENDERS), help="may be repeated; default inferd")
    parser.add_argument("--seconds", type=float, default=120, help="of load; default 120")
    chosen = parser.parse_args()
    measured = [
        measure(CONTENDERS[name], model, chosen.seconds)
        for model in options.models(chosen, _MODELS)
        for name in chosen.peer or _CONTENDERS
    ]
    console = report.console()
    show(measured, console)
    report.write_json(chosen.name, {"machine": machine.describe(), "measured": [*map(asdict, measured)]}, console)


if __name__ == "__main__":
    main()

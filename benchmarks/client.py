"""Cost of inferd's Python client: requests per second, and processor time per request.

Client and server share this machine's cores, as `inferd serve` starts by default; the client is one process.
"""

import asyncio
import resource
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmarks import machine, options, report
from benchmarks.models import Model
from benchmarks.process import Server, free_port
from benchmarks.servers import Job, launch_inferd
from inferd.client import AsyncClient, Client, Inputs

_WINDOW = 256
_CALLERS = 64
_WARM_UP = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """``cpu_us`` is the client's processor time per request. Medians of the rounds."""

    way: str
    model: str
    requests_per_s: float
    cpu_us: float


def _stream(address: str, model: str, inputs: list[Inputs]) -> None:
    with Client(address) as client:
        for item in client.stream(model, inputs, max_in_flight=_WINDOW):
            item.result()


def _aio_stream(address: str, model: str, inputs: list[Inputs]) -> None:
    async def run() -> None:
        async with AsyncClient(address) as client:
            async for item in client.stream(model, inputs, max_in_flight=_WINDOW):
                item.result()

    asyncio.run(run())


def _threads(address: str, model: str, inputs: list[Inputs], *, coalesce: bool) -> None:
    with Client(address, coalesce=coalesce) as client, ThreadPoolExecutor(_CALLERS) as pool:

        def caller(first: int) -> None:
            for one in inputs[first::_CALLERS]:
                client.infer(model, one)

        list(pool.map(caller, range(_CALLERS)))


def _tasks(address: str, model: str, inputs: list[Inputs], *, coalesce: bool) -> None:
    async def run() -> None:
        async with AsyncClient(address, coalesce=coalesce) as client:

            async def caller(first: int) -> None:
                for one in inputs[first::_CALLERS]:
                    await client.infer(model, one)

            await asyncio.gather(*map(caller, range(_CALLERS)))

    asyncio.run(run())


_WAYS: dict[str, Callable[[str, str, list[Inputs]], None]] = {
    "Client.stream": _stream,
    "AsyncClient.stream": _aio_stream,
    "Client.infer": lambda *work: _threads(*work, coalesce=False),
    "Client.infer, coalesced": lambda *work: _threads(*work, coalesce=True),
    "AsyncClient.infer": lambda *work: _tasks(*work, coalesce=False),
    "AsyncClient.infer, coalesced": lambda *work: _tasks(*work, coalesce=True),
}


def measure(model: Model, requests: int, rounds: int) -> list[Cost]:
    """Start a server and measure each way of calling it ``rounds`` times, in turn."""
    inputs: list[Inputs] = [{name: row[None] for name, row in one.items()} for one in model.rows()]
    inputs = list(islice(cycle(inputs), requests))
    seen: dict[str, list[tuple[float, float]]] = {way: [] for way in _WAYS}
    with TemporaryDirectory() as name:
        job = Job(model=model, setting=None, port=free_port(), folder=Path(name))
        launch, address = launch_inferd(job), f"127.0.0.1:{job.port}"
        with Server(launch.command, launch.environment, job.folder) as server, Client(address) as client:
            server.wait_ready(lambda: _ask(client, model, inputs[0]))
            for go in _WAYS.values():
                go(address, model.served_as, inputs[:_WARM_UP])
            for _ in range(rounds):
                for way, go in _WAYS.items():
                    seen[way].append(_time(lambda go=go: go(address, model.served_as, inputs)))  # type: ignore[misc]
    return [
        Cost(
            way=way,
            model=model.name,
            requests_per_s=median(requests / wall_s for wall_s, _ in times),
            cpu_us=median(cpu_s / requests * 1e6 for _, cpu_s in times),
        )
        for way, times in seen.items()
    ]


def _ask(client: Client, model: Model, inputs: Inputs) -> None:
    client.infer(model.served_as, inputs)


def _time(work: Callable[[], None]) -> tuple[float, float]:
    """Return the wall time and the processor time of ``work`` in seconds."""
    wall_s, cpu_s = time.perf_counter(), _cpu_s()
    work()
    return time.perf_counter() - wall_s, _cpu_s() - cpu_s


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def show(costs: list[Cost], console: Console) -> None:
    """Print a row for each way of calling."""
    table = Table("way", "model", "requests/s", "client CPU µs per request")
    for cost in costs:
        table.add_row(cost.way, cost.model, f"{cost.requests_per_s:,.0f}", f"{cost.cpu_us:,.1f}")
    console.print(table)


def main() -> None:
    """Measure, print, and write the results."""
    parser = options.parser(__doc__, "client")
    parser.add_argument("--requests", type=int, default=20_000, help="of each kind in each round; default 20000")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, reported as medians; default 3")
    chosen = parser.parse_args()
    costs = [
        cost for model in options.models(chosen, ("small",)) for cost in measure(model, chosen.requests, chosen.rounds)
    ]
    console = report.console()
    show(costs, console)
    report.write_json(chosen.name, {"machine": machine.describe(), "measured": [*map(asdict, costs)]}, console)


if __name__ == "__main__":
    main()

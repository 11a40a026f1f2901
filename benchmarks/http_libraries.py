"""Libraries for HTTP: an echo on each, alone and beside a thread that holds the interpreter lock for most of the time.

Run ``benchmarks/peers/http_libraries/setup.sh`` first. The server has one core and the load the other.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rich.table import Table

from benchmarks import http_wires, machine, options, report, wires, wrk
from benchmarks.models import ROOT
from benchmarks.process import Meter, Placement, Server, free_port
from benchmarks.servers import VENVS

_PYTHON = VENVS / "http_libraries" / "bin" / "python"
_LIBRARIES = (
    ("aiohttp", "asyncio"),
    ("aiohttp", "uvloop"),
    ("uvicorn", "asyncio"),
    ("uvicorn", "uvloop"),
    ("granian", "asyncio"),
)
#: Bytes of the body and of the answer, and connections.
_SIZES = ((256, 200, 64), (602_000, 4096, 8))
_SECONDS = 3
_PATH = "/v2/models/small/infer"
_HEADERS: Mapping[str, str] = {"Content-Type": "application/octet-stream", http_wires.JSON_LENGTH: "150"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One library in one round."""

    library: str
    loop: str
    body_bytes: int
    connections: int
    busy: bool
    round: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    cores_used: float


def measure(library: str, loop: str, size: tuple[int, int, int], busy: bool, number: int) -> Sample:
    """Measure one echo."""
    body_bytes, answer_bytes, connections = size
    port, body = free_port(), bytes(body_bytes)
    command = [*Placement.PINNED.server, str(_PYTHON), "-m", "benchmarks.baselines.http_echo", str(port)]
    command += [
        "--answer-bytes",
        str(answer_bytes),
        "--library",
        library,
        "--loop",
        loop,
        *(["--busy"] if busy else []),
    ]
    with TemporaryDirectory() as name, Server(command, {"PYTHONPATH": str(ROOT)}, Path(name)) as server:
        server.wait_ready(partial(wires.ask, port, _PATH, body, _HEADERS))
        with Meter(server) as meter:
            url = f"http://127.0.0.1:{port}{_PATH}"
            result = wrk.measure(url, body, _HEADERS, connections, Placement.PINNED, Path(name), _SECONDS)
        return Sample(
            library=library,
            loop=loop,
            body_bytes=body_bytes,
            connections=connections,
            busy=busy,
            round=number,
            requests_per_s=result.requests_per_s,
            p50_ms=result.p50_ms,
            p99_ms=result.p99_ms,
            cores_used=meter.cores_used,
        )


def main() -> None:
    """Measure, print, and write the results."""
    parser = options.parser(__doc__, "http_libraries")
    options.add_rounds(parser, rounds=1)
    chosen = parser.parse_args()
    console, groups = report.console(), defaultdict[tuple[str, str, int, bool], list[Sample]](list)
    try:
        for number, size, busy, (library, loop) in product(
            range(1, chosen.rounds + 1), _SIZES, (False, True), _LIBRARIES
        ):
            sample = measure(library, loop, size, busy, number)
            groups[library, loop, size[0], busy].append(sample)
            console.print(sample, highlight=False)
    finally:
        table = Table("library", "loop", "body", "beside a busy thread", "requests/s", "p50 ms", "p99 ms")
        for (library, loop, body_bytes, busy), group in groups.items():
            cells = [f"{median(one.requests_per_s for one in group):,.0f}"]
            cells += [f"{median(getattr(one, name) for one in group):.2f}" for name in ("p50_ms", "p99_ms")]
            table.add_row(library, loop, f"{body_bytes:,}", "yes" if busy else "no", *cells)
        console.print(table)
        samples = [asdict(one) for group in groups.values() for one in group]
        report.write_json(chosen.name, {"machine": machine.describe(), "samples": samples}, console)


if __name__ == "__main__":
    main()

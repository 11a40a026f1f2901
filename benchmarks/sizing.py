"""Memory of a model: while it is loaded, with full batches, when it is idle, and when it has been unloaded.

All of it is the growth of the server over its size without models. With the weights in the model's file, and in a file
of their own. The process that tries new files first is left out.
"""

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

from benchmarks import machine, options, report
from benchmarks.models import Model
from benchmarks.process import Server, free_port
from inferd.client import Client

_MODELS = ("mid",)
_ROWS = 1024
_BATCHES = 3
_MIB = 2**20
#: Longer than the shortest `runtime.shrink_after_s`, and the interval at which it is looked at.
_IDLE_S = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """Bytes on disk, and growth of the resident set in bytes. ``peak`` is the highest while loading."""

    model: str
    weights: str
    rows: int
    files: int
    peak: int
    loaded: int
    full_batches: int
    idle: int
    unloaded: int


def measure(model: Model, rows: int, *, external: bool) -> Sizes:
    """Load, call and unload ``model`` in a server of its own."""
    with TemporaryDirectory() as folder, _serving(Path(folder), model, rows, external=external) as (server, client):
        # What any load needs once, such as modules, does not count.
        client.load_model(model.served_as)
        client.unload_model(model.served_as)
        empty = server.rss_bytes()
        client.load_model(model.served_as)
        # The server resets the count of the system when a load begins.
        peak, loaded = _highest(server.pid), server.rss_bytes()
        batch = {name: np.repeat(array[None], rows, axis=0) for name, array in model.rows()[0].items()}
        for _ in range(_BATCHES):
            client.infer(model.served_as, batch)
        full = server.rss_bytes()
        time.sleep(_IDLE_S)
        idle = server.rss_bytes()
        client.unload_model(model.served_as)
        return Sizes(
            model=model.name,
            weights="a file of their own" if external else "in the model",
            rows=rows,
            files=sum(path.stat().st_size for path in Path(folder, "models").rglob("1/*")),
            peak=peak - empty,
            loaded=loaded - empty,
            full_batches=full - empty,
            idle=idle - empty,
            unloaded=server.rss_bytes() - empty,
        )


@contextmanager
def _serving(folder: Path, model: Model, rows: int, *, external: bool) -> Iterator[tuple[Server, Client]]:
    version = folder / "models" / model.served_as / "1"
    version.mkdir(parents=True)
    onnx.save(onnx.load(model.path), version / "model.onnx", save_as_external_data=external, location="weights")
    port = free_port()
    settings = {
        "repository.mode": "explicit",
        "batching.max_batch_size": rows,
        "queue.max_rows": 2 * rows,
        "server.http_port": "none",
        "server.metrics_port": 0,
        "runtime.shrink_after_s": 1,
        "runtime.verdict_cache": "null",
        "repository.probe": False,
    }
    flags = [text for name, value in settings.items() for text in ("--set", f"{name}={value}")]
    command = [
        sys.executable,
        "-m",
        "inferd",
        "serve",
        "--model-repository",
        str(folder / "models"),
        "--grpc-port",
        str(port),
        *flags,
    ]
    with Server(command, {}, folder) as server, Client(f"127.0.0.1:{port}") as client:
        server.wait_ready(partial(_ask, client))
        yield server, client


def _ask(client: Client) -> None:
    """Raise an error until the server answers."""
    client.models()


def _highest(pid: int) -> int:
    """Return the peak of the resident set."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None, "Linux has this line"
    return int(found[1]) * 1024


def show(measured: list[Sizes], console: Console) -> None:
    """Print a row for each."""
    table = Table("model", "weights", "files MiB", "peak of the load", "loaded", "full batches", "idle", "unloaded")
    for one in measured:
        sizes = (one.files, one.peak, one.loaded, one.full_batches, one.idle, one.unloaded)
        table.add_row(one.model, one.weights, *(f"{size / _MIB:,.0f}" for size in sizes))
    console.print(table)


def main() -> None:
    """Measure, print, and write the results."""
    parser = options.parser(__doc__, "sizing")
    parser.add_argument("--rows", type=int, default=_ROWS, help=f"of a full batch; default {_ROWS}")
    chosen = parser.parse_args()
    measured = [
        measure(model, chosen.rows, external=external)
        for model in options.models(chosen, _MODELS)
        for external in (False, True)
    ]
    console = report.console()
    show(measured, console)
    report.write_json(chosen.name, {"machine": machine.describe(), "measured": [*map(asdict, measured)]}, console)


if __name__ == "__main__":
    main()

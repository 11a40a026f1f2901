"""Draws the README's picture from the results that are there: requests/s of each server with 64 calls in flight.

python -m benchmarks.overview
"""

import json
from pathlib import Path
from typing import Any

from benchmarks import charts
from benchmarks.report import RESULTS

_PICTURE = Path("docs/throughput.png")
_MODEL, _PLACEMENT, _IN_FLIGHT = "small", "unpinned", 64
#: Each file has inferd beside the servers that were measured by turns with it; of inferd itself the last one counts.
_RESULTS = ("python-servers", "small")
_LABELS = {
    "triton": "Triton",
    "mosec": "mosec (HTTP/1.1)",
    "grpc.aio": "grpc.aio",
    "grpc.server": "grpc.server",
    "kserve": "KServe",
    "mlserver": "MLServer",
    "litserve": "LitServe",
    "bentoml": "BentoML",
    "ray-serve": "Ray Serve",
}


def _medians(name: str) -> dict[str, float]:
    measured: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return {
        point["server"]: point["requests_per_s"]
        for point in measured["medians"]
        if (point["model"], point["placement"], point["concurrency"]) == (_MODEL, _PLACEMENT, _IN_FLIGHT)
    }


def main() -> None:
    """Write the picture."""
    requests_per_s: dict[str, float] = {}
    for name in _RESULTS:
        requests_per_s |= _medians(name)
    title = f"Small model, {_IN_FLIGHT} calls in flight, client and server on the same 2 cores"
    labelled = {_LABELS.get(server, server): speed for server, speed in requests_per_s.items()}
    charts.draw_overview(_PICTURE, title, labelled)


if __name__ == "__main__":
    main()

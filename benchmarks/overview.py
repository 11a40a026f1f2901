"""Draw the picture of the README from the results that are checked in.

On the left the requests/s of each server with 64 calls in flight; on the right the goodput of the servers that were
overloaded: the requests/s that they answer within a second.

python -m benchmarks.overview
"""

import json
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import charts
from benchmarks.report import RESULTS

_PICTURE = Path("docs/throughput.png")
_MODEL, _PLACEMENT, _IN_FLIGHT = "small", "unpinned", 64
#: Results of inferd and other servers, measured in turn; inferd's bar is from the last file.
_RESULTS = ("python-servers", "small")
#: The overload that is shown: connections whose clients fail fast and set no deadline.
_OVERLOAD = {"deadline_ms": None, "connections": 16, "fail_fast": True}
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


def _read(name: str) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return results


def _throughput() -> dict[str, float]:
    """Return requests/s by server."""
    return {
        _LABELS.get(point["server"], point["server"]): point["requests_per_s"]
        for name in _RESULTS
        for point in _read(name)["medians"]
        if (point["model"], point["placement"], point["concurrency"]) == (_MODEL, _PLACEMENT, _IN_FLIGHT)
    }


def _goodput() -> dict[str, dict[str, float]]:
    """Return the median goodput by server and offered load, which is given in multiples of its capacity."""
    rounds: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for measured in _read("overload")["measured"]:
        way, capacity = measured["way"], measured["capacity_per_s"]
        if measured["model"] == _MODEL and way.items() >= _OVERLOAD.items():
            loads = rounds[_LABELS.get(measured["server"], measured["server"])]
            loads["capacity"].append(capacity)
            loads[f"{way['factor']:g}x offered"].append(measured["share"] * capacity)
    return {server: {load: median(values) for load, values in loads.items()} for server, loads in rounds.items()}


def main() -> None:
    """Write the picture."""
    charts.draw_overview(
        _PICTURE,
        speed_title=f"Small model, {_IN_FLIGHT} calls in flight, client and server on the same 2 cores",
        requests_per_s=_throughput(),
        goodput_title="Goodput under overload, a core each",
        goodput_per_s=_goodput(),
    )


if __name__ == "__main__":
    main()

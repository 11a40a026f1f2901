"""Closed-loop load over HTTP/1.1 by wrk."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from benchmarks.process import Placement, Result, run_load

#: Nearly the duration of perf_analyzer's three windows.
SECONDS = 4


def measure(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    concurrency: int,
    placement: Placement,
    folder: Path,
    seconds: int = SECONDS,
) -> Result:
    """Keep ``concurrency`` connections busy for so many seconds."""
    path = folder / "body"
    path.write_bytes(body)
    script = Path(__file__).with_name("post.lua")
    command = ["wrk", "-t1", f"-c{concurrency}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script), url]
    lines = "".join(f"{name}: {value}\n" for name, value in headers.items())
    environment = {**os.environ, "BENCH_BODY": str(path), "BENCH_HEADERS": lines}
    output = run_load(command, placement, environment)
    found = re.search(r"^RESULT (\d+) (\d+) (\d+) (\d+) (\d+)$", output, re.MULTILINE)
    if found is None:
        msg = f"wrk failed: {output[-2000:]}"
        raise RuntimeError(msg)
    requests, duration_us, p50_us, p99_us, errors = map(int, found.groups())
    return Result(
        requests_per_s=requests / duration_us * 1e6, p50_ms=p50_us / 1000, p99_ms=p99_us / 1000, errors=errors
    )

"""Builds and runs grpcload, and returns its measurements.

grpcload is a C++ client that loads a gRPC server: with a number of requests in flight (closed loop), or with requests
at random times that do not wait for answers (open loop). It is compiled again when its sources have changed.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).resolve().parent
BINARY = SOURCES.parent.parent / ".venv" / "grpcload"
COMPILER = ("g++", "-std=c++17", "-O2")
# Time beyond the load itself, for connecting and for the last answers.
GRACE_S = 30.0


class GrpcloadError(RuntimeError):
    """grpcload could not be built or could not measure; the text has the reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Latency of the OK answers in milliseconds, from the scheduled time of each request."""

    mean: float
    p50: float
    p90: float
    p99: float
    p99_9: float
    max: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """Outcomes of the requests that were scheduled within the measured time.

    ``requests`` is the sum of ``statuses``, ``bad_answers``, ``expired``, ``refused_by_client``, ``failed_transport``
    and ``unanswered``.
    ``ok_per_s`` is the rate at which OK answers came within the measured time, whenever they had been asked for;
    ``ok_within_1s_per_s`` counts those of the requests that were answered OK within a second.
    """

    requests: int
    ok: int
    statuses: Mapping[str, int]
    bad_answers: int
    expired: int
    refused_by_client: int
    failed_transport: int
    unanswered: int
    duration_s: float
    ok_per_s: float
    ok_within_1s_per_s: float
    max_in_flight: int
    max_held_back: int
    latency_ms: Latency
    first_failure: str

    @property
    def refused(self) -> int:
        """Return how many requests the server rejected, by status or within a stream."""
        return self.statuses.get("RESOURCE_EXHAUSTED", 0) + self.statuses.get("IN_BAND_ERROR", 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """Result of a run. ``client_cpu_s`` near the duration means that the client was the limit."""

    load: Tally
    probe: Tally | None
    connections_lost: int
    client_cpu_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """A load: exactly one of ``closed`` (requests in flight) and ``poisson_per_s``, and its parameters.

    ``message`` is one serialised request or, on streams, one message of ``packed`` requests. With ``count_field`` each
    field 1 of a response message is a result, else each response message is one. With ``fail_fast`` requests by
    ``poisson_per_s`` do not wait for a free stream, as with gRPC's channel argument
    ``grpc.http.max_concurrent_streams_reject_on_client``. ``log`` is a file that gets a line for each request.
    """

    target: str
    method: str
    message: bytes
    closed: int | None = None
    poisson_per_s: float | None = None
    seed: int = 1
    connections: int = 1
    duration_s: float = 5.0
    warmup_s: float = 1.0
    deadline_ms: float | None = None
    fail_fast: bool = False
    headers: Mapping[str, str] | None = None
    min_response_bytes: int = 0
    log: Path | None = None
    streams: int | None = None
    packed: int = 1
    count_field: bool = False
    probe_method: str | None = None
    probe_message: bytes = b""
    probe_interval_ms: float = 20.0

    def arguments(self, folder: Path) -> list[str]:
        """Return grpcload's arguments; messages are written to files in ``folder``."""
        data = folder / "message"
        data.write_bytes(self.message)
        arguments = ["--target", self.target, "--method", self.method, "--data", str(data)]
        arguments += ["--seed", str(self.seed), "--connections", str(self.connections)]
        arguments += ["--duration", str(self.duration_s), "--warmup", str(self.warmup_s)]
        arguments += ["--min-response-bytes", str(self.min_response_bytes)]
        for option, value in (
            ("--closed", self.closed),
            ("--poisson", self.poisson_per_s),
            ("--deadline-ms", self.deadline_ms),
            ("--log", self.log),
        ):
            arguments += [] if value is None else [option, str(value)]
        arguments += ["--fail-fast"] if self.fail_fast else []
        for name, text in (self.headers or {}).items():
            arguments += ["--header", f"{name}: {text}"]
        return arguments + self._stream_arguments() + self._probe_arguments(folder)

    def _stream_arguments(self) -> list[str]:
        if self.streams is None:
            return []
        arguments = ["--stream", "--streams", str(self.streams), "--packed", str(self.packed)]
        return [*arguments, *(["--count-field"] if self.count_field else [])]

    def _probe_arguments(self, folder: Path) -> list[str]:
        if self.probe_method is None:
            return []
        data = folder / "probe"
        data.write_bytes(self.probe_message)
        interval = str(self.probe_interval_ms)
        return ["--probe", self.probe_method, "--probe-data", str(data), "--probe-interval-ms", interval]


def build() -> Path:
    """Compile grpcload unless it is newer than its sources; returns the path of the binary."""
    sources = sorted(SOURCES.glob("*.cc"))
    newest = max(path.stat().st_mtime for path in (*sources, *SOURCES.glob("*.h")))
    if BINARY.exists() and BINARY.stat().st_mtime > newest:
        return BINARY
    if shutil.which(COMPILER[0]) is None:
        raise GrpcloadError(f"grpcload is compiled with {COMPILER[0]}, which is not installed")
    BINARY.parent.mkdir(exist_ok=True)
    made = BINARY.with_suffix(".new")
    command = [*COMPILER, "-o", str(made), *(str(path) for path in sources)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise GrpcloadError(f"grpcload does not compile:\n{done.stderr}")
    return made.replace(BINARY)


def run(load: Load, *, cpu: int | None = None) -> Result:
    """Run ``load`` and return the result; with ``cpu``, pinned to that core."""
    pinned = [] if cpu is None else ["taskset", "-c", str(cpu)]
    binary = build()
    with tempfile.TemporaryDirectory() as folder:
        command = [*pinned, str(binary), *load.arguments(Path(folder))]
        limit_s = load.warmup_s + load.duration_s + (load.deadline_ms or 0) / 1e3 + GRACE_S
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    if done.returncode != 0:
        raise GrpcloadError(done.stderr.strip().splitlines()[0] if done.stderr else f"exit code {done.returncode}")
    return parse(done.stdout)


def parse(text: str) -> Result:
    """Parse the output of grpcload."""
    found: dict[str, Any] = json.loads(text)
    probe = found.pop("probe")
    return Result(load=_tally(found.pop("load")), probe=None if probe is None else _tally(probe), **found)


def _tally(found: dict[str, Any]) -> Tally:
    return Tally(latency_ms=Latency(**found.pop("latency_ms")), **found)

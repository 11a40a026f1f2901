"""A flood over one protocol, and another caller of another model over the other one.

The caller has a token of its own and asks `digits` at random or even times, a fraction of what the server can do. The
flood is a closed loop that takes all that the server gives. The server has one core, or all with ``--unpinned``; both
loads have one, where the caller goes first. The caller's latencies beside the flood are compared with those alone, and
with those beside the same flood over the caller's own protocol.
"""

import http.client
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmarks import http_wires, machine, options, report
from benchmarks.load import grpcload
from benchmarks.models import MODELS, ROOT, Model
from benchmarks.process import Placement, Server, free_port
from benchmarks.servers import Job, launch_over_http
from benchmarks.wires import MODEL_INFER, ask, open_inference_request
from inferd.security.authentication.bearer_tokens import StoredToken, format_entry, hash_token

_PER_S = 200
_SECONDS = 2.0
_WARM_UP_S = 0.7
_CONNECTIONS = 64
#: Connections of the caller over HTTP, each with its thread.
_THREADS = 4
_POLICY = """
rules:
  - principals: ["token:limited"]
    quota: {requests_per_s: 100}
  - principals: ["*"]
"""
_NAMES = ("caller", "flooding", "limited")
_LARGE_ELEMENTS = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Flood:
    """What is sent: the body over HTTP and the message over gRPC."""

    name: str
    token: str
    body: bytes
    headers: Mapping[str, str]
    message: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """The caller's requests beside one flood; ``flood_by`` is empty without one."""

    flood: str
    flood_by: str
    caller_by: str
    requests: int
    ok: int
    p50_ms: float
    p99_ms: float
    max_ms: float


def floods() -> list[Flood]:
    """Return floods that are answered, refused, and hostile."""
    small = MODELS["small"]
    row = small.rows()[0]
    headers, body = http_wires.request_of(row, binary=True)
    request = open_inference_request(small, row)
    message = request.SerializeToString()
    as_json = {"Content-Type": "application/json"}
    del request.raw_input_contents[:]
    request.inputs[0].shape[:] = [_LARGE_ELEMENTS // 64, 64]
    request.inputs[0].contents.fp32_contents.extend([0.5] * _LARGE_ELEMENTS)
    numbers = b",".join([b"0.123456789"] * _LARGE_ELEMENTS)
    shape = b'"shape":[%d,64]' % (_LARGE_ELEMENTS // 64)
    large = b'{"inputs":[{"name":"x",%b,"datatype":"FP32","data":[%b]}]}' % (shape, numbers)
    return [
        Flood(name="answered", token="flooding", body=body, headers=headers, message=message),
        Flood(name="over its quota", token="limited", body=body, headers=headers, message=message),
        Flood(name="without a token", token="", body=body, headers=headers, message=message),
        Flood(name="malformed", token="flooding", body=b"[" * 100, headers=as_json, message=b"\xff" * 100),
        Flood(
            name="a list of 100,000", token="flooding", body=large, headers=as_json, message=request.SerializeToString()
        ),
    ]


def _authorization(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer inferd_{token}"} if token else {}


@contextmanager
def _flooding(flood: Flood, by: str, port: int, folder: Path) -> Iterator[None]:
    """Send the flood meanwhile, with less priority than the caller."""
    command = ["nice", "-n", "20", *Placement.PINNED.load]
    environment = dict(os.environ)
    duration_s = _WARM_UP_S + 2 * _SECONDS + 4
    if by == "HTTP":
        (folder / "body").write_bytes(flood.body)
        headers = {**flood.headers, **_authorization(flood.token)}
        lines = "".join(f"{name}: {value}\n" for name, value in headers.items())
        environment |= {"BENCH_BODY": str(folder / "body"), "BENCH_HEADERS": lines}
        url = f"http://127.0.0.1:{port + 1}{http_wires.path_of(MODELS['small'])}"
        command += ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{duration_s:.0f}s"]
        command += ["-s", str(ROOT / "benchmarks" / "post.lua"), url]
    else:
        load = grpcload.Load(
            target=f"127.0.0.1:{port}",
            method=MODEL_INFER,
            message=flood.message,
            closed=_CONNECTIONS,
            duration_s=duration_s,
            headers=_authorization(flood.token),
        )
        command += [str(grpcload.BINARY), *load.arguments(folder)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(_WARM_UP_S)
        yield
    finally:
        process.kill()
        process.wait()


def _call_over_grpc(model: Model, port: int) -> tuple[int, int, float, float, float]:
    load = grpcload.Load(
        target=f"127.0.0.1:{port}",
        method=MODEL_INFER,
        message=open_inference_request(model, model.rows()[0]).SerializeToString(),
        poisson_per_s=_PER_S,
        duration_s=_SECONDS,
        warmup_s=0.3,
        headers=_authorization("caller"),
    )
    tally = grpcload.run(load, cpu=Placement.PINNED.load_core).load
    latency = tally.latency_ms
    return tally.requests, tally.ok, latency.p50, latency.p99, latency.max


def _call_over_http(model: Model, port: int) -> tuple[int, int, float, float, float]:
    headers, body = http_wires.request_of(model.rows()[0], binary=True)
    headers |= _authorization("caller")
    durations_ms: list[float] = []
    begin = time.monotonic() + 0.05

    def call(first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port + 1, timeout=30)
        for number in range(first, int(_PER_S * _SECONDS), _THREADS):
            due = begin + number / _PER_S
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                connection.request("POST", http_wires.path_of(model), body, headers)
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                continue
            if response.status == http.client.OK:
                durations_ms.append((time.monotonic() - due) * 1e3)
        connection.close()

    threads = [threading.Thread(target=call, args=(first,)) for first in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ordered = sorted(durations_ms) or [float("inf")]
    last = len(ordered) - 1
    return int(_PER_S * _SECONDS), len(durations_ms), ordered[last // 2], ordered[int(last * 0.99)], ordered[last]


_CALLERS = {"gRPC": _call_over_grpc, "HTTP": _call_over_http}


def _sample(flood: str, flood_by: str, caller_by: str, port: int) -> Sample:
    requests, ok, p50_ms, p99_ms, max_ms = _CALLERS[caller_by](MODELS["digits"], port)
    return Sample(
        flood=flood,
        flood_by=flood_by,
        caller_by=caller_by,
        requests=requests,
        ok=ok,
        p50_ms=p50_ms,
        p99_ms=p99_ms,
        max_ms=max_ms,
    )


@contextmanager
def _server(folder: Path, placement: Placement) -> Iterator[int]:
    """Serve both models with tokens; yields the port of gRPC, and HTTP is on the next."""
    models = folder / "models"
    models.mkdir()
    for name in ("small", "digits"):
        (models / name).symlink_to(MODELS[name].folder)
    tokens = (StoredToken(name=name, sha256=hash_token(f"inferd_{name}"), expires=None) for name in _NAMES)
    (folder / "tokens.yaml").write_text("".join(map(format_entry, tokens)))
    (folder / "policy.yaml").write_text(_POLICY)
    port = free_port()
    launch = launch_over_http(Job(model=MODELS["small"], setting=None, port=port, folder=folder))
    command = [str(models) if each == str(MODELS["small"].folder) else each for each in launch.command]
    command += ["--set", f"security.tokens_file={folder}/tokens.yaml"]
    command += ["--set", f"security.policy_file={folder}/policy.yaml"]
    with Server([*placement.server, *command], launch.environment, folder) as server:
        digits = MODELS["digits"]
        headers, body = http_wires.request_of(digits.rows()[0], binary=True)
        headers |= _authorization("caller")
        server.wait_ready(partial(ask, port + 1, http_wires.path_of(digits), body, headers))
        yield port


def main() -> None:
    """Measure, print, and write the results."""
    parser = options.parser(__doc__, "floods")
    parser.add_argument("--unpinned", action="store_true", help="the server may use all cores")
    options.add_rounds(parser)
    chosen = parser.parse_args()
    placement = Placement.UNPINNED if chosen.unpinned else Placement.PINNED
    console = report.console()
    with TemporaryDirectory() as name:
        folder = Path(name)
        with _server(folder, placement) as port:
            # Only now, as the server would inherit it.
            os.sched_setaffinity(0, {Placement.PINNED.load_core or 0})
            os.nice(-10)
            # The first requests take longer.
            for by in _CALLERS:
                _sample("none", "", by, port)
            rounds = [_round(port, folder, console) for _ in range(chosen.rounds)]
    console.print(_table(rounds))
    content = {"machine": machine.describe(), "rounds": [[*map(asdict, samples)] for samples in rounds]}
    report.write_json(chosen.name, content, console)


def _round(port: int, folder: Path, console: Console) -> list[Sample]:
    samples: list[Sample] = []
    for flood in floods():
        samples += [_sample("none", "", by, port) for by in _CALLERS]
        for by in _CALLERS:
            with _flooding(flood, by, port, folder):
                samples += [_sample(flood.name, by, caller_by, port) for caller_by in _CALLERS]
            console.print(samples[-2], samples[-1], highlight=False)
    return samples


def _table(rounds: list[list[Sample]]) -> Table:
    """Return the medians of the rounds; ratios are relative to the median of all samples without a flood in a round."""
    table = Table(
        "flood", "by", "caller by", "answered", "p50 ms", "p99 ms", "max ms", "p99 / alone", "lowest to highest"
    )
    of_case: dict[tuple[str, str, str], list[tuple[Sample, float]]] = {}
    for samples in rounds:
        alone = {
            by: median(one.p99_ms for one in samples if not one.flood_by and one.caller_by == by) for by in _CALLERS
        }
        for one in samples:
            case = of_case.setdefault((one.flood, one.flood_by, one.caller_by), [])
            case.append((one, one.p99_ms / alone[one.caller_by]))
    for named, measured in of_case.items():
        of_round, ratios = zip(*measured, strict=True)
        answered = f"{sum(one.ok for one in of_round)} of {sum(one.requests for one in of_round)}"
        p50, p99 = median(one.p50_ms for one in of_round), median(one.p99_ms for one in of_round)
        cells = [answered, f"{p50:.2f}", f"{p99:.2f}", f"{max(one.max_ms for one in of_round):.1f}"]
        table.add_row(*named, *cells, f"{median(ratios):.1f}", f"{min(ratios):.1f} to {max(ratios):.1f}")
    return table


if __name__ == "__main__":
    main()

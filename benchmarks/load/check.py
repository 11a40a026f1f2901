"""Check grpcload against servers with known behaviour: ``python -m benchmarks.load.check``."""

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc

from benchmarks.load.grpcload import Load, Tally, build, parse, run
from benchmarks.load.scripted_peer import ALLOWED_STREAMS, ScriptedPeer

SMALL = b"\x12\x04ping"
LARGE = b"\x12" + b"\xc0\xcf\x24" + bytes(600_000)
FOUR_RESULTS = b"\x0a\x02\x12\x00" * 3 + b"\x0a\x04\x1a\x02\x08\x08"  # the last one is an error of code 8
ONE_ERROR = b"\x0a\x03bad"
SLEEP_S = 0.3
WORKERS = 8
FEW_STREAMS = 4


class Known(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """Methods that echo, reject every third call, or sleep; counts the calls."""

    def __init__(self) -> None:
        self.calls = 0
        self._lock = threading.Lock()

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        """Return the handler of a method."""
        name = details.method.rsplit("/", 1)[-1]
        if name == "Stream":
            return grpc.stream_stream_rpc_method_handler(self._stream)
        unary = {"Echo": self._echo, "Third": self._third, "Sleep": self._sleep}.get(name)
        return grpc.unary_unary_rpc_method_handler(unary) if unary else None

    def _echo(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        token = dict(context.invocation_metadata()).get("authorization", "none")
        if token not in {"none", "Bearer right"}:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, 'a "strange" token')
        return request

    def _third(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        with self._lock:
            self.calls += 1
            third = self.calls % 3 == 0
        if third:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        return request

    def _sleep(self, request: bytes, _: grpc.ServicerContext) -> bytes:
        time.sleep(SLEEP_S)
        return request

    def _stream(self, requests: Iterable[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        yield from requests


def expect(condition: bool, seen: object) -> None:
    """Exit with ``seen`` unless ``condition``."""
    if not condition:
        raise SystemExit(f"not ok: {seen}")


def adds_up(tally: Tally) -> bool:
    """Return whether each request has exactly one outcome."""
    others = tally.bad_answers + tally.expired + tally.refused_by_client + tally.failed_transport + tally.unanswered
    return tally.requests > 0 and tally.requests == sum(tally.statuses.values()) + others


def measure(target: str, method: str, **how: object) -> Tally:
    """Run for a second without warm-up, and return the outcomes of the requests."""
    options: dict[str, Any] = {"message": SMALL, "duration_s": 1.0, "warmup_s": 0.0, **how}
    tally = run(Load(target=target, method=f"/check/{method}", **options)).load
    expect(adds_up(tally), tally)
    return tally


def check_answers(target: str, known: Known) -> None:
    """Requests of any size are answered, and counted once."""
    tally = measure(target, "Echo", closed=64, connections=2)
    expect(tally.ok == tally.requests and 48 < tally.max_in_flight <= 64, tally)
    tally = measure(target, "Echo", closed=4, message=LARGE, min_response_bytes=len(LARGE))
    expect(tally.ok == tally.requests > 10, tally)
    tally = measure(target, "Echo", closed=2, min_response_bytes=len(SMALL) + 1)
    expect(tally.bad_answers == tally.requests, tally)
    known.calls = 0
    tally = measure(target, "Third", poisson_per_s=500)
    expect(tally.requests == known.calls and 350 < known.calls < 650, (known.calls, tally))
    expect(tally.refused == known.calls // 3 and tally.ok == known.calls - known.calls // 3, (known.calls, tally))


def check_failures(target: str, _: Known) -> None:
    """Statuses, deadlines and headers arrive."""
    tally = measure(target, "Nope", poisson_per_s=100)
    expect(tally.statuses == {"UNIMPLEMENTED": tally.requests}, tally)
    tally = measure(target, "Echo", closed=1, headers={"authorization": "Bearer wrong"})
    expect(tally.statuses == {"UNAUTHENTICATED": tally.requests}, tally)
    expect(tally.first_failure == 'a "strange" token', tally)
    tally = measure(target, "Echo", closed=1, headers={"authorization": "Bearer right"})
    expect(tally.ok == tally.requests, tally)
    tally = measure(target, "Sleep", poisson_per_s=60, deadline_ms=SLEEP_S * 1e3 / 3)
    # The server enforces the deadline too, and may be first.
    expect(tally.expired + tally.statuses.get("DEADLINE_EXCEEDED", 0) == tally.requests, tally)
    tally = measure(target, "Sleep", closed=4, deadline_ms=SLEEP_S * 1e3 * 3)
    expect(tally.ok == tally.requests, tally)
    expect(SLEEP_S * 1e3 <= tally.latency_ms.p50 < SLEEP_S * 1.5e3, tally)


def check_overload(target: str, _: Known) -> None:
    """Requests begin on schedule, however late the answers come, and the probe is measured separately."""
    tally = measure(target, "Sleep", poisson_per_s=4 * WORKERS / SLEEP_S)
    expect(2e3 < tally.latency_ms.max < 6e3 and tally.ok == tally.requests, tally)
    expect(tally.ok_within_1s_per_s < tally.ok / 2, tally)
    expect(tally.ok_per_s <= WORKERS / SLEEP_S * 1.1, tally)
    probed = run(
        Load(target=target, method="/check/Sleep", message=SMALL, closed=2, duration_s=1, probe_method="/check/Echo")
    )
    expect(probed.probe is not None and probed.probe.ok == probed.probe.requests == 50, probed)


def check_log(target: str, _: Known) -> None:
    """The log has each request, and SIGTERM ends the measured time."""
    with TemporaryDirectory() as folder:
        log = Path(folder, "log")
        load = Load(
            target=target, method="/check/Third", message=SMALL, poisson_per_s=200, warmup_s=0, duration_s=60, log=log
        )
        process = subprocess.Popen([build(), *load.arguments(Path(folder))], stdout=subprocess.PIPE, text=True)
        time.sleep(1)
        process.terminate()
        output = process.communicate()[0]
        tally = parse(output).load
        outcomes = [line.split()[2] for line in log.read_text().splitlines()]
    expect(adds_up(tally) and 0.5 < tally.duration_s < 10, tally)
    expect(Counter(outcomes) == tally.statuses, (Counter(outcomes), tally))


def check_streams(target: str, _: Known) -> None:
    """Results are counted one by one, however they are packed in messages."""
    tally = measure(target, "Stream", closed=32, streams=4)
    expect(tally.ok == tally.requests and tally.max_in_flight == 32, tally)
    tally = measure(target, "Stream", closed=32, streams=2, packed=4, count_field=True, message=FOUR_RESULTS)
    expect(tally.refused * 4 == tally.requests and tally.ok == tally.refused * 3, tally)
    tally = measure(target, "Stream", poisson_per_s=800, streams=2, packed=4, count_field=True, message=FOUR_RESULTS)
    expect(tally.refused * 4 == tally.requests and 500 < tally.requests < 1100, tally)
    tally = measure(target, "Stream", closed=2, streams=1, message=ONE_ERROR)
    expect(tally.statuses == {"IN_BAND_ERROR": tally.requests}, tally)
    tally = measure(target, "Stream", closed=2, streams=1, message=LARGE)
    expect(tally.ok == tally.requests > 5, tally)
    tally = measure(target, "Nope", closed=8, streams=2)
    expect(tally.statuses == {"UNIMPLEMENTED": tally.requests}, tally)


def check_fail_fast() -> None:
    """Beyond the server's limit of streams, requests wait in the client, or fail there at once."""
    server, target = serve(Known(), ("grpc.max_concurrent_streams", FEW_STREAMS))
    tally = measure(target, "Sleep", poisson_per_s=50)
    # The server may still count a stream as open after its answer, and reject the next one, even twice.
    expect(tally.ok + tally.failed_transport == tally.requests and tally.failed_transport <= 3, tally)
    expect(tally.max_held_back > 15 and tally.latency_ms.max > 1.5e3, tally)
    for connections in (1, 2):
        tally = measure(target, "Sleep", poisson_per_s=100, fail_fast=True, connections=connections)
        expect(tally.ok + tally.refused_by_client + tally.failed_transport == tally.requests, tally)
        expect(tally.failed_transport <= 3 and tally.max_held_back == 0, tally)
        # Each stream carries at most four calls that begin within the second.
        expect(connections * FEW_STREAMS * 2 < tally.ok <= connections * FEW_STREAMS * 4, tally)
        expect(tally.latency_ms.max < SLEEP_S * 1.5e3, tally)
    tally = measure(target, "Sleep", poisson_per_s=100, fail_fast=True, deadline_ms=SLEEP_S * 1e3 / 3)
    late = tally.expired + tally.statuses.get("DEADLINE_EXCEEDED", 0)
    expect(late > 0 and late + tally.refused_by_client + tally.failed_transport == tally.requests, tally)
    server.stop(None).wait()


def check_scripted() -> None:
    """Frames that gRPC's servers rarely send are handled, and a lost connection is counted."""
    with ScriptedPeer(answers=30) as peer:
        tally = measure(peer.target, "Echo", poisson_per_s=200, min_response_bytes=4)
    expect(tally.statuses == {"OK": 10, "RESOURCE_EXHAUSTED": 10}, tally)
    expect(tally.failed_transport == tally.requests - 20, tally)
    with ScriptedPeer(answers=3000) as peer:
        tally = measure(peer.target, "Echo", closed=8)
    expect(peer.most_open == ALLOWED_STREAMS and tally.max_held_back == 6, (peer.most_open, tally))
    expect(peer.pings >= 3000 - 2 * ALLOWED_STREAMS, (peer.pings, tally))  # It does not read the last ones.
    expect(tally.ok == tally.refused == 1000, tally)


def serve(known: Known, option: tuple[str, int]) -> tuple[grpc.Server, str]:
    """Start a server, and return it with its address."""
    server = grpc.server(futures.ThreadPoolExecutor(WORKERS), handlers=[known], options=[option])
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    return server, target


def main() -> None:
    """Run all checks."""
    known = Known()
    server, target = serve(known, ("grpc.max_receive_message_length", -1))
    checks: tuple[Callable[[str, Known], None], ...] = (
        check_answers,
        check_failures,
        check_overload,
        check_log,
        check_streams,
    )
    for check in checks:
        check(target, known)
        print(f"{check.__name__}: ok")
    server.stop(None).wait()
    for check_alone in (check_fail_fast, check_scripted):
        check_alone()
        print(f"{check_alone.__name__}: ok")


if __name__ == "__main__":
    main()

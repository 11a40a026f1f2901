"""Count what a request costs in files entered, Python calls and changes of file.

Starts a server in this process with the built-in model, metrics and the access log, and follows single requests with
Python's profiling hook. Only the threads that a request passes through count, not those that work in the background,
such as the writer of the log. Generated stubs and libraries are not counted.

    python -m scripts.trace_request                    the table
    python -m scripts.trace_request --calls unary      every call of one kind of request, in order
    python -m scripts.trace_request --functions loaded how often each function is called for a request
"""

import argparse
import asyncio
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from types import FrameType

import grpc

import inferd
from inferd import demo
from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from inferd.app.application import Application
from inferd.config.loading import load_settings
from inferd.models.repository import resolve

_PACKAGE = str(Path(inferd.__file__).parent) + os.sep
_GENERATED = _PACKAGE + "_generated"
_BACKGROUND = ("log-writer", "call-recorder", "http", "poll-watch", "run-watchdog", "gpu-sampler", "traces", "signals")
_TIMEOUT_S = 30.0
#: Requests before a sample counts as warm: enough for the server to learn the run times.
_WARM_UP = 2000
_SAMPLES = 15
_SETTLE_S = 0.02
_IN_FLIGHT = 64
_LOADED_REQUESTS = _IN_FLIGHT * 300


@dataclass(frozen=True, slots=True)
class Trace:
    """The calls of some requests, as file and function, in order."""

    calls: list[tuple[str, str]]
    requests: int = 1

    @property
    def files(self) -> int:
        """Number of files entered."""
        return len({file for file, _ in self.calls})

    @property
    def per_request(self) -> float:
        """Python calls per request."""
        return len(self.calls) / self.requests

    @property
    def changes(self) -> float:
        """Number of calls into another file than the one before, per request."""
        files = [file for file, _ in self.calls]
        return sum(earlier != later for earlier, later in pairwise(files)) / self.requests

    def by_function(self) -> list[tuple[str, str, float]]:
        """Return each file and function with its calls per request, most calls first."""
        return [(*call, count / self.requests) for call, count in Counter(self.calls).most_common()]

    def by_package(self) -> list[tuple[str, int, float]]:
        """Return each package with its files and calls per request, most calls first."""
        calls = Counter(_package(file) for file, _ in self.calls)
        files = Counter(_package(file) for file in {file for file, _ in self.calls})
        return [(name, files[name], count / self.requests) for name, count in calls.most_common()]


class Tracer:
    """Records the calls into the package in all threads that start after `install`, while it is on."""

    def __init__(self) -> None:
        self._calls: dict[str, list[tuple[str, str]]] | None = None

    def install(self) -> None:
        """Trace the threads that start from now on."""
        threading.setprofile(self._on_event)

    @contextmanager
    def recording(self) -> Iterator[list[tuple[str, str]]]:
        """Record until the block ends; then the list has the calls, one thread after the other."""
        calls: list[tuple[str, str]] = []
        by_thread: dict[str, list[tuple[str, str]]] = {}
        self._calls = by_thread
        try:
            yield calls
        finally:
            self._calls = None
            for each in by_thread.values():
                calls.extend(each)

    def _on_event(self, frame: FrameType, event: str, _argument: object) -> None:
        by_thread = self._calls
        if by_thread is None or event != "call":
            return
        code = frame.f_code
        name = threading.current_thread().name
        if not code.co_filename.startswith(_PACKAGE) or code.co_filename.startswith(_GENERATED):
            return
        if not name.startswith(_BACKGROUND):
            entry = (code.co_filename.removeprefix(_PACKAGE), code.co_qualname)
            by_thread.setdefault(name, []).append(entry)


def _package(file: str) -> str:
    return file.partition(os.sep)[0] if os.sep in file else "(root)"


def _request(columns: int = 64) -> pb.InferRequest:
    values = bytes(4 * columns)
    return pb.InferRequest(model="digits", inputs=[pb.Tensor(name="X", shape=[1, columns], raw=values)])


class Client:
    """Sends single requests and traces them."""

    def __init__(self, address: str, tracer: Tracer) -> None:
        self._tracer = tracer
        self._stub = InferenceServiceStub(grpc.insecure_channel(address))
        self._messages: SimpleQueue[pb.StreamInferRequest] = SimpleQueue()
        self._answers: Iterator[pb.StreamInferResponse] | None = None

    def unary(self, request: pb.InferRequest) -> Trace:
        """Send one request, which may be rejected."""
        return self._follow(lambda: self.send(request))

    def send(self, request: pb.InferRequest) -> None:
        """Send one request and wait for its end, whatever the status."""
        self._stub.Infer.future(request, timeout=_TIMEOUT_S).exception()

    def stream(self) -> Trace:
        """Send a message with two requests on a stream, which the first call opens."""
        answers = self._answers = self._answers or iter(self._stub.StreamInfer(iter(self._messages.get, None)))

        def send() -> None:
            requests = [_request(), _request()]
            for number, request in enumerate(requests):
                request.request_id = str(number)
            self._messages.put(pb.StreamInferRequest(requests=requests))
            left = len(requests)
            while left:
                left -= len(next(answers).results)

        return self._follow(send)

    def _follow(self, send: Callable[[], None]) -> Trace:
        with self._tracer.recording() as calls:
            send()
            # The poll thread's work after the answer belongs to the request.
            time.sleep(_SETTLE_S)
        return Trace(calls)


def _loaded(address: str, tracer: Tracer) -> Trace:
    """Trace requests of another process, with a number of them in flight."""
    command = [sys.executable, "-m", "scripts.trace_request", "--load", address]
    with tracer.recording() as calls:
        subprocess.run(command, check=True, timeout=10 * _TIMEOUT_S)
    return Trace(calls, _LOADED_REQUESTS)


async def _load(address: str) -> None:
    request = _request().SerializeToString()
    async with grpc.aio.insecure_channel(address) as channel:
        infer = channel.unary_unary("/inferd.v1.InferenceService/Infer", None, None)

        async def call_in_turn() -> None:
            for _ in range(_LOADED_REQUESTS // _IN_FLIGHT):
                await infer(request, timeout=_TIMEOUT_S)

        await asyncio.gather(*(call_in_turn() for _ in range(_IN_FLIGHT)))


@contextmanager
def _serving() -> Iterator[Application]:
    ports = {"server.grpc_port": 0, "server.http_port": "none", "server.metrics_port": 0}
    settings = load_settings(config_file=None, flags=ports)
    application = Application(settings, resolve([demo.repository()]))
    application.start()
    loaded = threading.Event()
    application.load(loaded.set)
    loaded.wait(_TIMEOUT_S)
    application.open(lambda _: ())
    try:
        yield application
    finally:
        application.drain()


@contextmanager
def _quiet_stdout() -> Iterator[None]:
    """Discard the server's log, and keep the output of this program."""
    sys.stdout.flush()
    shown = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    sys.stdout = os.fdopen(shown, "w")
    yield


def _typical(trace: Callable[[], Trace]) -> Trace:
    """Return the trace with the median of calls."""
    traces = sorted((trace() for _ in range(_SAMPLES)), key=lambda each: len(each.calls))
    return traces[len(traces) // 2]


def _trace_all() -> dict[str, Trace]:
    """Trace each kind of request."""
    tracer = Tracer()
    tracer.install()
    with _serving() as application:
        client = Client(application.grpc_address, tracer)
        traces = {"cold": client.unary(_request())}
        for _ in range(_WARM_UP):
            client.send(_request())
        traces["unary"] = _typical(lambda: client.unary(_request()))
        traces["rejected"] = _typical(lambda: client.unary(_request(columns=3)))
        client.stream()
        traces["stream"] = _typical(client.stream)
        traces["loaded"] = _loaded(application.grpc_address, tracer)
    return traces


_KINDS = {
    "unary": "unary, warm",
    "cold": "unary, the first",
    "rejected": "unary, rejected for its shape",
    "stream": "stream message with two requests",
    "loaded": f"{_IN_FLIGHT} in flight, for each request",
}


def _print_table(traces: dict[str, Trace]) -> None:
    print(f"{'':34} {'files':>6} {'calls':>7} {'changes of file':>16}")
    for kind, title in _KINDS.items():
        trace = traces[kind]
        print(f"{title:34} {trace.files:6} {trace.per_request:7.0f} {trace.changes:16.0f}")
        for package, files, calls in trace.by_package():
            print(f"    {package:30} {files:6} {calls:7.1f}")


def main() -> None:
    """Print the table, or the calls of one kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", choices=[kind for kind in _KINDS if kind != "loaded"])
    parser.add_argument("--functions", choices=list(_KINDS))
    parser.add_argument("--load", metavar="ADDRESS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        asyncio.run(_load(options.load))
        return
    with _quiet_stdout():
        traces = _trace_all()
    if options.calls:
        for file, function in traces[options.calls].calls:
            print(f"{file:44} {function}")
    elif options.functions:
        for file, function, calls in traces[options.functions].by_function():
            print(f"{calls:8.2f}  {file:44} {function}")
    else:
        _print_table(traces)
    sys.stdout.flush()


if __name__ == "__main__":
    main()

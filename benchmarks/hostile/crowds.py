"""Callers whose behaviour is hostile: many at once, slow, never reading, never ending."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

import grpc

from benchmarks.hostile.corpus import KINDS
from benchmarks.hostile.inferd_v1 import INFER, STREAM_INFER
from benchmarks.hostile.sender import OPTIONS, send
from tests.raw_uploads import RawUpload

MIB = 2**20
_MESSAGE_BYTES, _SENT_BYTES = 60 * MIB, 55 * MIB
_BOMB_BYTES = 61 * MIB
_UPLOADS, _BOMBS = 24, 16
_FLOOD_S = 5.0
_TIMEOUT_S = 60.0
_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
_METADATA = [(f"x-hostile-{number}", "a" * 60) for number in range(100)]

#: Attacks while its context is open, and then returns the statuses that its members got.
Crowd = Callable[[int], AbstractContextManager[Counter[str]]]


@contextmanager
def _stalled_uploads(method: str, port: int) -> Iterator[Counter[str]]:
    with ExitStack() as stack:
        uploads = [RawUpload(f"127.0.0.1:{port}", method, _MESSAGE_BYTES) for _ in range(_UPLOADS)]
        for upload in uploads:
            stack.enter_context(upload)
        threads = [threading.Thread(target=upload.send, args=(_SENT_BYTES,)) for upload in uploads]
        _run(threads)
        yield Counter("ended" if upload.has_ended else "open" for upload in uploads)


@contextmanager
def _bombs(method: str, port: int) -> Iterator[Counter[str]]:
    yield _at_once(_BOMBS, lambda: send(port, method, bytes(_BOMB_BYTES), _TIMEOUT_S, gzip=True).status)


@contextmanager
def _large_at_once(kind: str, nbytes: int, count: int, port: int) -> Iterator[Counter[str]]:
    message, method = KINDS[kind].build(nbytes), KINDS[kind].method
    yield _at_once(count, lambda: send(port, method, message, _TIMEOUT_S).status)


@contextmanager
def _idle_streams(method: str, connections: int, each: int, port: int) -> Iterator[Counter[str]]:
    """Open streams on which nothing is sent."""
    with ExitStack() as stack:
        silent, calls = threading.Event(), []
        for _ in range(connections):
            channel = stack.enter_context(_channel(port))
            opened = channel.stream_stream(method, None, None)
            calls += [opened(_nothing(silent)) for _ in range(each)]
        time.sleep(_FLOOD_S)
        yield Counter("open" if call.is_active() else "ended" for call in calls)
        for call in calls:
            call.cancel()  # type: ignore[no-untyped-call]
        silent.set()


def _nothing(silent: threading.Event) -> Iterator[bytes]:
    """Send nothing until the event."""
    silent.wait()
    yield from ()


@contextmanager
def _message_flood(port: int, *, reads: bool) -> Iterator[Counter[str]]:
    """Streams of small messages at full speed, with or without reading the answers."""
    message = KINDS["StreamInfer: requests that are answered"].build(1)
    until = time.monotonic() + _FLOOD_S

    def flood() -> Iterator[bytes]:
        while time.monotonic() < until:
            yield message

    def one() -> str:
        with _channel(port) as channel:
            call = channel.stream_stream(STREAM_INFER, None, None)(flood(), timeout=_TIMEOUT_S)
            if not reads:
                time.sleep(_FLOOD_S)
                call.cancel()  # type: ignore[no-untyped-call]
                return "not read"
            return f"{sum(1 for _ in call) > 0}"

    yield _at_once(4, one)


@contextmanager
def _call_flood(message: bytes, metadata: list[tuple[str, str]], port: int) -> Iterator[Counter[str]]:
    """Unary calls at full speed."""
    until, counted = time.monotonic() + _FLOOD_S, Counter[str]()

    def one() -> str:
        with _channel(port) as channel:
            infer = channel.unary_unary(INFER, None, None)
            while time.monotonic() < until:
                counted[_status(infer.with_call, message, metadata=metadata, timeout=_TIMEOUT_S)] += 1
        return "done"

    _at_once(4, one)
    yield counted


@contextmanager
def _cancelled_uploads(port: int) -> Iterator[Counter[str]]:
    """Large messages whose callers disconnect halfway."""
    address, counted = f"127.0.0.1:{port}", Counter[str]()
    for _ in range(_UPLOADS):
        with RawUpload(address, INFER, _MESSAGE_BYTES) as upload:
            upload.send(_MESSAGE_BYTES // 2)
            counted["ended" if upload.has_ended else "left"] += 1
    yield counted


@contextmanager
def _connections(port: int) -> Iterator[Counter[str]]:
    """Open connections without any call."""
    with ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(RawUpload(f"127.0.0.1:{port}", INFER, 1))
        yield Counter()


#: By name.
CROWDS: dict[str, Crowd] = {
    "24 uploads that stall at 55 of 60 MiB": partial(_stalled_uploads, INFER),
    "24 streams whose message stalls at 55 of 60 MiB": partial(_stalled_uploads, STREAM_INFER),
    "24 uploads to Health/Check that stall": partial(_stalled_uploads, _HEALTH_CHECK),
    "16 gzip bombs of 61 MiB": partial(_bombs, INFER),
    "16 gzip bombs of 61 MiB to Health/Check": partial(_bombs, _HEALTH_CHECK),
    "16 messages of 60 MB at once": partial(_large_at_once, "Infer: raw zeros for numbers", 60_000_000, 16),
    "32 messages of 6 MB of empty tensors at once": partial(_large_at_once, "Infer: empty tensors", 6_000_000, 32),
    "32 messages of 1 MB of typed numbers at once": partial(
        _large_at_once, "Infer: ints of 1 bytes for numbers", 900_000, 32
    ),
    "24 uploads that are given up halfway": _cancelled_uploads,
    "1,000 streams that say nothing": partial(_idle_streams, STREAM_INFER, 10, 100),
    "200 reflection streams that say nothing": partial(_idle_streams, _REFLECTION, 2, 100),
    "a flood of small messages": partial(_message_flood, reads=True),
    "a flood of small messages, answers unread": partial(_message_flood, reads=False),
    "a flood of calls with 10 KB of metadata": partial(_call_flood, b"", _METADATA),
    "a flood of wrong calls": partial(_call_flood, b"\x0a\x06nobody", []),
    "500 connections": _connections,
}


def _at_once(count: int, one: Callable[[], str]) -> Counter[str]:
    """Call ``one`` from many threads, and count the results."""
    counted: Counter[str] = Counter()
    _run([threading.Thread(target=lambda: counted.update([one()])) for _ in range(count)])
    return counted


def _run(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _channel(port: int) -> grpc.Channel:
    return grpc.insecure_channel(f"127.0.0.1:{port}", OPTIONS)


def _status(call: Callable[..., object], *arguments: object, **named: object) -> str:
    try:
        call(*arguments, **named)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code.name
    return "OK"

"""A running server with the usual handlers, and ways to wait without sleeping."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from inferd.rpc import Server, callback_stream, callback_unary
from tests.patience import PATIENCE_S

TIMEOUT_S = PATIENCE_S
SERVICE = "test.Service"


class Recorder:
    """An interceptor that queues the ends of calls."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.ends: queue.Queue[tuple[Any, grpc.StatusCode, str]] = queue.Queue()

    def started(self, call: Any) -> None:
        self.calls.append(call)

    def finished(self, call: Any, code: grpc.StatusCode, details: str) -> None:
        self.ends.put((call, code, details))

    def next_code(self) -> grpc.StatusCode:
        return self.ends.get(timeout=TIMEOUT_S)[1]


class Echo:
    """A stream that echoes messages and records its events."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.received = 0
        self.terminated = threading.Event()

    def on_message(self, message: bytes) -> None:
        self.received += 1
        self.call.send(message)
        self.call.read()

    def on_half_close(self) -> None:
        self.call.finish(trailing_metadata=(("echoed", str(self.received)),))

    def on_terminated(self) -> None:
        self.terminated.set()


class Joined(Echo):
    """A stream that answers once, with all messages."""

    def __init__(self, call: Any) -> None:
        super().__init__(call)
        self.parts: list[bytes] = []

    def on_message(self, message: bytes) -> None:
        self.parts.append(message)
        self.call.read()

    def on_half_close(self) -> None:
        self.call.send(b"".join(self.parts))
        self.call.finish()


class Repeated(Echo):
    """A stream that answers its one request three times."""

    def on_message(self, message: bytes) -> None:
        for _ in range(3):
            self.call.send(message)
        self.call.finish()


class Held:
    """A unary handler whose calls the test answers."""

    def __init__(self) -> None:
        self.calls: queue.Queue[Any] = queue.Queue()

    def __call__(self, call: Any, message: bytes) -> None:
        self.calls.put(call)

    def next(self) -> Any:
        return self.calls.get(timeout=TIMEOUT_S)


def open_stream(kind: type[Echo], opened: list[Any] | None = None) -> Callable[[Any], Echo]:
    def open_(call: Any) -> Echo:
        listener = kind(call)
        if opened is not None:
            opened.append(listener)
        call.read()
        return listener

    return open_


def raise_secret(*_: Any) -> Any:
    raise RuntimeError("secret")


def repeat(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    yield from [request] * 3


def echo_all(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    count = 0
    for request in requests:
        count += 1
        yield request
    context.set_trailing_metadata((("echoed", str(count)),))


def usual_handlers(held: Held, opened: list[Any]) -> dict[str, Any]:
    """Callback and blocking handlers of all four shapes, and some that fail."""
    return {
        "CallbackUnaryUnary": callback_unary(lambda call, message: call.reply(message)),
        "CallbackUnaryStream": callback_stream(open_stream(Repeated, opened)),
        "CallbackStreamUnary": callback_stream(open_stream(Joined, opened)),
        "CallbackStreamStream": callback_stream(open_stream(Echo, opened)),
        "BlockingUnaryUnary": grpc.unary_unary_rpc_method_handler(lambda request, _: request),
        "BlockingUnaryStream": grpc.unary_stream_rpc_method_handler(repeat),
        "BlockingStreamUnary": grpc.stream_unary_rpc_method_handler(lambda requests, _: b"".join(requests)),
        "BlockingStreamStream": grpc.stream_stream_rpc_method_handler(echo_all),
        "Held": callback_unary(held),
        "CallbackRaises": callback_unary(raise_secret),
        "BlockingRaises": grpc.unary_unary_rpc_method_handler(raise_secret),
    }


#: The core would widen HTTP/2 windows by what it measures, which depends on how busy the machine is.
_FIXED_WINDOWS = (("grpc.http2.bdp_probe", 0),)


class Running:
    """A server on a port of its own, and a channel to it."""

    def __init__(self, handlers: dict[str, Any] | None = None, **settings: Any) -> None:
        self.recorder = Recorder()
        self.held = Held()
        self.opened: list[Any] = []
        interceptors = [self.recorder, *settings.pop("interceptors", ())]
        options = [*_FIXED_WINDOWS, *settings.pop("options", ())]
        self.server = Server(interceptors=interceptors, options=options, **settings)
        self.server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    SERVICE, {**usual_handlers(self.held, self.opened), **(handlers or {})}
                )
            ]
        )
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{self.port}"
        self.channel = grpc.insecure_channel(
            self.address,
            options=[*_FIXED_WINDOWS, ("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)],
        )

    def start(self) -> "Running":
        self.server.start()
        return self

    def close(self) -> None:
        self.server.stop(None)
        self.channel.close()

    def unary(self, method: str) -> Any:
        return self.channel.unary_unary(f"/{SERVICE}/{method}")

    def call(self, method: str, message: bytes = b"hello", **options: Any) -> bytes:
        reply: bytes = self.unary(method)(message, **{"timeout": TIMEOUT_S, **options})
        return reply

    def fail(self, method: str, message: bytes = b"hello", **options: Any) -> grpc.RpcError:
        try:
            self.call(method, message, **options)
        except grpc.RpcError as error:
            return error
        raise AssertionError(f"{method} was answered")


def wait_for(server: Server, condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> bool:
    """Wait until ``condition`` holds; it is checked on the poll thread."""
    met = threading.Event()

    def look() -> None:
        if condition():
            met.set()
        else:
            server.poll_loop.call_at(time.monotonic() + 0.005, look)

    server.poll_loop.call_at(0.0, look)
    return met.wait(timeout_s)


def wait_idle(server: Server) -> bool:
    """Wait until the server has no live calls."""
    return wait_for(server, lambda: server.live_calls == 0)


class Requests:
    """An iterator of requests that a test feeds; counts the requests taken."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.taken = 0

    def put(self, message: bytes | None) -> None:
        """Add a request; None ends them."""
        self._queue.put(message)

    def __iter__(self) -> Iterator[bytes]:
        while (message := self._queue.get()) is not None:
            self.taken += 1
            yield message


def secure_port(running: Running, credentials: grpc.ServerCredentials) -> str:
    """Start ``running`` with a port of these credentials; return its address."""
    port = running.server.add_secure_port("127.0.0.1:0", credentials)
    running.start()
    return f"127.0.0.1:{port}"


def ask(address: str, credentials: grpc.ChannelCredentials) -> bytes:
    """Call the handler ``Who`` over a new connection."""
    with grpc.secure_channel(address, credentials) as channel:
        return channel.unary_unary(f"/{SERVICE}/Who")(b"", timeout=TIMEOUT_S)

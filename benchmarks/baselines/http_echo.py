"""The least that a library for HTTP can do: read the body of a request, and answer a fixed number of bytes.

``python -m benchmarks.baselines.http_echo PORT --answer-bytes N`` runs in any virtual environment that has the library.
The library runs in a thread, as it would in inferd. With ``--busy`` another thread works as the poll thread of a busy
server does: in Python, in short steps, for most of the time.
"""

import argparse
import asyncio
import importlib
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

#: One step of the busy thread, and its pause, as of a poll thread that takes 80 % of a core.
_STEP_S = 0.0004
_PAUSE_S = 0.0001
_Message = dict[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]

_HEADERS = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "150"}


async def _aiohttp(port: int, answer: bytes) -> None:
    """Serve with the low-level server of aiohttp."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        return web.Response(body=answer, headers=_HEADERS)

    server = web.Server(handle, access_log=None)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", port)
    await listening.serve_forever()


async def _uvicorn(port: int, answer: bytes) -> None:
    """Serve with uvicorn and httptools."""
    uvicorn = importlib.import_module("uvicorn")
    options = {"lifespan": "off", "access_log": False, "log_level": "warning"}
    await uvicorn.Server(uvicorn.Config(_asgi(answer), port=port, http="httptools", **options)).serve()


async def _granian(port: int, answer: bytes) -> None:
    """Serve with granian, by its interface for embedding."""
    embed = importlib.import_module("granian.server.embed")
    interface = importlib.import_module("granian.constants").Interfaces.ASGINL
    await embed.Server(_asgi(answer), port=port, interface=interface, websockets=False).serve()


def _asgi(answer: bytes) -> Callable[[object, _Receive, _Send], Awaitable[None]]:
    headers = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
    headers.append((b"content-length", str(len(answer)).encode()))

    async def application(_scope: object, receive: _Receive, send: _Send) -> None:
        pieces = []
        more = True
        while more:
            message = await receive()
            pieces.append(message.get("body", b""))
            more = message.get("more_body", False)
        b"".join(pieces)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return application


LIBRARIES = {"aiohttp": _aiohttp, "uvicorn": _uvicorn, "granian": _granian}


def _work() -> None:
    """Hold the interpreter lock for most of the time."""
    while True:
        until = time.thread_time() + _STEP_S
        while time.thread_time() < until:
            pass
        time.sleep(_PAUSE_S)


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("--answer-bytes", type=int, required=True)
    parser.add_argument("--library", choices=LIBRARIES, default="aiohttp")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--busy", action="store_true")
    chosen = parser.parse_args()
    make_loop = importlib.import_module(chosen.loop).new_event_loop

    def serve() -> None:
        with asyncio.Runner(loop_factory=make_loop) as runner:
            runner.run(LIBRARIES[chosen.library](chosen.port, bytes(chosen.answer_bytes)))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    if chosen.busy:
        threading.Thread(target=_work, daemon=True).start()
    thread.join()


if __name__ == "__main__":
    main()

"""Probes report a stuck poll thread."""

import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inferd import demo
from inferd.app.application import Application
from inferd.config.loading import load_settings
from inferd.models.repository import resolve
from inferd.observability.logging import setup as logs
from tests.patience import PATIENCE_S, eventually

_SETTINGS = {
    "server.grpc_port": 0,
    "server.http_port": "none",
    "server.metrics_port": 0,
    "server.ready_max_lag_s": 0.5,
    "server.live_max_lag_s": 2.0,
}
_NOT_SERVING, _SERVING = health_pb2.HealthCheckResponse.NOT_SERVING, health_pb2.HealthCheckResponse.SERVING


@contextmanager
def _running() -> Iterator[Application]:
    app = Application(load_settings(config_file=None, flags=_SETTINGS), resolve([demo.repository()]))
    app.start()
    loaded = threading.Event()
    app.load(loaded.set)
    assert loaded.wait(PATIENCE_S)
    assert app.open(lambda _: ())
    try:
        yield app
    finally:
        app.drain()


def _get(app: Application, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{app.metrics_address}{path}", timeout=PATIENCE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture(autouse=True)
def _own_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the logging that the server configures for its process."""
    monkeypatch.setattr(logs, "configure", lambda *_: None)


def test_probes_with_stuck_poll_thread() -> None:
    """First not ready, then not alive, and healthy again when it continues, for watchers too."""
    go_on = threading.Event()
    with _running() as app, grpc.insecure_channel(app.grpc_address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        question = health_pb2.HealthCheckRequest()
        seen: list[int] = []
        watch = health.Watch(question)
        watcher = threading.Thread(target=_follow, args=(watch, seen), daemon=True)
        watcher.start()
        eventually(lambda: _get(app, "/readyz") == (200, "ok\n"), "the server is ready")
        eventually(lambda: bool(seen), "the watcher has been told")
        assert _get(app, "/livez") == (200, "ok\n")
        app._server.poll_loop.call_soon(lambda: go_on.wait(PATIENCE_S) and None)
        try:
            eventually(lambda: _get(app, "/readyz")[0] == 503, "the server is not ready")
            code, body = _get(app, "/readyz")
            assert (code, "s behind, server.ready_max_lag_s is 0.5" in body) == (503, True)
            eventually(lambda: _get(app, "/livez")[0] == 503, "the server is not alive")
            assert "s behind, server.live_max_lag_s is 2" in _get(app, "/livez")[1]
            # Sent before, so that it is among the first things that the thread finds.
            asked = health.Check.future(question, timeout=PATIENCE_S)
        finally:
            go_on.set()
        first = asked.result().status
        eventually(lambda: _get(app, "/livez") == _get(app, "/readyz") == (200, "ok\n"), "the server is healthy again")
        assert first == _NOT_SERVING
        assert health.Check(question, timeout=PATIENCE_S).status == _SERVING
        eventually(lambda: len(_changes(seen)) == 3, "the watcher has seen it")
        assert _changes(seen) == [_SERVING, _NOT_SERVING, _SERVING]
        watch.cancel()
        watcher.join(PATIENCE_S)


def _follow(watch: Iterable[health_pb2.HealthCheckResponse], seen: list[int]) -> None:
    with suppress(grpc.RpcError):  # It is cancelled at the end.
        seen.extend(each.status for each in watch)


def _changes(seen: list[int]) -> list[int]:
    """Return the statuses that a watcher got, without repetitions."""
    return [status for number, status in enumerate(seen) if number == 0 or status != seen[number - 1]]

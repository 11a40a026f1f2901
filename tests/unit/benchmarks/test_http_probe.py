"""The HTTP probe of the benchmark of overload, on a real server."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.http_probe import HttpProbe
from tests.patience import PATIENCE_S


class _Handler(BaseHTTPRequestHandler):
    probed = threading.Event()
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.probed.set()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the signature of the base class)
        pass


@pytest.mark.parametrize(("status", "fails"), [(200, False), (503, True)])
def test_probes_a_server(status, fails):
    """What is not OK is a failure; each probe has a duration."""
    _Handler.status = status
    _Handler.probed.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            with HttpProbe(server.server_port) as probe:
                assert _Handler.probed.wait(PATIENCE_S)
        finally:
            server.shutdown()
    assert (probe.failures > 0) is fails
    assert 0 < probe.quantile_ms(0.5) <= probe.quantile_ms(1.0)


def test_has_no_duration_without_probes():
    """A load may have ended at once."""
    assert HttpProbe(1).quantile_ms(0.99) == 0.0

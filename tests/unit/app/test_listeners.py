"""Which settings the error of a listener names."""

import pytest

from inferd.app.listeners import ListenError, grpc_settings, http_settings, metrics_settings, named
from inferd.config.server import ServerSettings


@pytest.mark.parametrize(
    ("settings", "grpc", "http", "metrics"),
    [
        ({}, "server.host (--host)", "server.host (--host)", "server.host (--host)"),
        (
            {"http": {"host": "127.0.0.2"}, "metrics_host": "127.0.0.3"},
            "server.host (--host)",
            "server.http.host",
            "server.metrics_host",
        ),
        ({"host": "unix:/tmp/a.sock"}, "server.host (--host)", "server.http.host", "server.metrics_host"),
    ],
)
def test_host_that_a_listener_has(settings, grpc, http, metrics):
    """Its own, or that of all."""
    server = ServerSettings.model_validate(settings)
    texts = (grpc_settings(server), http_settings(server), metrics_settings(server))
    assert tuple(text.rpartition(" on ")[2] for text in texts) == (grpc, http, metrics)


def test_error_begins_with_the_settings():
    """Whichever way the listener raised it."""
    with pytest.raises(ListenError, match=r"^server\.host: cannot listen$"), named("server.host"):
        raise OSError("cannot listen")

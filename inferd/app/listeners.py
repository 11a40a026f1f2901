"""Errors of the server's listeners, with the settings that chose their addresses."""

from collections.abc import Iterator
from contextlib import contextmanager

from inferd.addresses import is_unix_socket
from inferd.config.server import ServerSettings


class ListenError(RuntimeError):
    """A listener cannot have its address; the text has the settings, the address and the reason."""


@contextmanager
def named(settings: str) -> Iterator[None]:
    """Begin the error of a listener with its ``settings``."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise ListenError(f"{settings}: {error}") from error


def grpc_settings(server: ServerSettings) -> str:
    """Return the settings of the address of gRPC, and their flags."""
    if is_unix_socket(server.host):
        return "server.host (--host)"
    return "server.grpc_port (--grpc-port) on server.host (--host)"


def http_settings(server: ServerSettings) -> str:
    """Return the settings of the address of inference over HTTP, and their flags."""
    return f"server.http_port (--http-port) on {_own_host(server, 'server.http.host', server.http.host)}"


def metrics_settings(server: ServerSettings) -> str:
    """Return the settings of the address of metrics and probes, and their flags."""
    return f"server.metrics_port (--metrics-port) on {_own_host(server, 'server.metrics_host', server.metrics_host)}"


def _own_host(server: ServerSettings, setting: str, host: str | None) -> str:
    return setting if host is not None or is_unix_socket(server.host) else "server.host (--host)"

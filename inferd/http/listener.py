"""Sockets to listen on."""

import os
import socket

#: A flood must not fill it: the system would drop what a probe sends, which tries again after a second.
_BACKLOG = 2048


class BindError(OSError):
    """The address cannot be bound; the text has the address and the reason."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on ``host``, in brackets if it is an IPv6 address. Raises `BindError`."""
    host = host.removeprefix("[").removesuffix("]")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # As in gRPC, [::] is all interfaces of both families.
        both = host == "::" and socket.has_dualstack_ipv6()
        listener = socket.create_server(address[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        shown = f"[{host}]" if ":" in host else host
        raise BindError(f"cannot listen on {shown}:{port} for HTTP: {_cause(error)}") from error
    listener.setblocking(False)
    return listener


def _cause(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror or error)

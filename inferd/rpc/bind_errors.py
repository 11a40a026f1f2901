"""Why an address cannot be listened on, which gRPC's core writes to its log only."""

import os
import socket

from inferd.addresses import is_unix_socket


def why_not_bound(address: str) -> str:
    """Return the system's reason why ``address``, which the core could not bind, is not available."""
    if is_unix_socket(address):
        return "it is taken, or not permitted"
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        family, _, _, _, found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        socket.create_server(found[:2], family=family).close()
    except socket.gaierror as error:
        return f"{error.strerror}"
    except (OSError, ValueError) as error:
        number = getattr(error, "errno", None)
        return os.strerror(number) if number else str(error)
    return "gRPC's log on standard error tells why"

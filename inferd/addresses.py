"""Properties of network addresses that the client and the server share."""

from ipaddress import ip_address


def is_unix_socket(address: str) -> bool:
    """Whether ``address`` names a Unix socket in gRPC's syntax, rather than a host."""
    return address.startswith(("unix:", "unix-abstract:"))


def is_loopback(host: str) -> bool:
    """Whether ``host``, without a port, is on this machine. Host names other than localhost are not."""
    if is_unix_socket(host):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"

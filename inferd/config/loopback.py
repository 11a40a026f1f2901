"""Which addresses stay on this machine."""

from ipaddress import ip_address


def is_unix_socket(host: str) -> bool:
    """Whether ``host`` is the address of a Unix socket rather than a name or an IP address."""
    return host.startswith(("unix:", "unix-abstract:"))


def is_loopback(host: str) -> bool:
    """Whether what is sent to ``host`` stays on this machine; what is no address, nor localhost, counts as not."""
    if is_unix_socket(host):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"

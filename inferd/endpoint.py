"""Addresses and TLS of a server, shared by the client and `inferd health`."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from inferd import addresses
from inferd.arguments import Metadata, checked_flag, checked_token
from inferd.plain_text import escaped, quoted
from inferd.small_files import read_bytes

if TYPE_CHECKING:
    import grpc

# gRPC's prefixes of addresses: dns:NAME:PORT, dns://SERVER/NAME:PORT, ipv4:HOST:PORT, ipv6:HOST:PORT.
_TCP_SCHEME = re.compile(r"^(dns:(//[^/]*/)?|ipv[46]:)")
# Prefixes of addresses that only gRPC parses.
_OTHER_SCHEMES = ("unix-abstract:", "vsock:", "xds:")
# Maximum length of a socket's path, including its terminator.
_SOCKET_NAME_BYTES = 108


@dataclass(frozen=True, kw_only=True, slots=True)
class TLS:
    """How to verify the server, and how to authenticate to it.

    ``ca`` is a PEM file with the trusted CA certificates, by default gRPC's own list, over HTTP the system's.
    ``certificate`` and ``key`` are the client's PEM files for mutual TLS. ``server_name`` is the expected name in the
    server's certificate if it is not the address's.
    """

    ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        for name in ("ca", "certificate", "key"):
            path = getattr(self, name)
            if not isinstance(path, str | Path | None):
                raise TypeError(f"{name}: expected the path of a PEM file, got {type(path).__name__}")
        if (self.certificate is None) != (self.key is None):
            msg = "certificate and key: expected both or none"
            raise ValueError(msg)
        if not isinstance(self.server_name, str | None):
            raise TypeError(f"server_name: expected a str, got {type(self.server_name).__name__}")

    def contents(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Read CA, certificate and key. Raises `OSError`, or `ValueError` for one that is no PEM file, naming it."""
        return _read("ca", self.ca), _read("certificate", self.certificate), _read("key", self.key)

    def credentials(self) -> "grpc.ChannelCredentials":
        """Read the files. Raises as `contents`."""
        # Not for commands over HTTP, which would wait for it.
        import grpc  # noqa: PLC0415

        ca, certificate, key = self.contents()
        return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=certificate)


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """A server's address, with the credentials of connections and the metadata of each call.

    Raises `TypeError` or `ValueError` for an invalid address, or if the token would be sent in clear text to another
    machine without being allowed to.
    """

    address: str
    tls: TLS | None = None
    token: str | None = None
    allow_insecure_token: bool = False

    def __post_init__(self) -> None:
        _check_address(self.address)
        if not isinstance(self.tls, TLS | None):
            raise TypeError(f"tls: expected TLS or None, got {type(self.tls).__name__}")
        checked_flag("allow_insecure_token", self.allow_insecure_token)
        if self.token is not None:
            checked_token(self.token)
        protected = self.tls is not None or self.allow_insecure_token or is_loopback(self.address)
        require_protected_token(self.address, self.token, protected=protected)

    def metadata(self) -> Metadata:
        """Return the metadata of each call."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)

    def options(self) -> dict[str, str | int]:
        """Return gRPC's options for this address."""
        options: dict[str, str | int] = {}
        if is_loopback(self.address):
            # The environment's http_proxy is for other machines.
            options["grpc.enable_http_proxy"] = 0
        if self.tls is not None and self.tls.server_name is not None:
            options["grpc.ssl_target_name_override"] = self.tls.server_name
        return options


def require_protected_token(address: str, token: str | None, *, protected: bool) -> None:
    """Raise `ValueError` if there is a token, and nothing protects it on its way."""
    if token is not None and not protected:
        raise ValueError(
            f'the token would travel to "{address}" for everyone on the way to read: use TLS, or allow insecure tokens '
            "if something else protects the connection"
        )


def is_loopback(address: str) -> bool:
    """Whether ``address`` is on this machine; unclear addresses count as not."""
    if addresses.is_unix_socket(address):
        return True
    endpoint = _TCP_SCHEME.sub("", address)
    return addresses.is_loopback(endpoint.rpartition(":")[0] or endpoint)


def _check_address(address: str) -> None:
    if not isinstance(address, str):
        raise TypeError(f"address: expected a str, got {type(address).__name__}")
    fault = _fault(address)
    if fault:
        raise ValueError(f"address is {quoted(address)}, expected HOST:PORT or unix:PATH, got {fault}")


def _fault(address: str) -> str:
    """Return what is wrong with an address; empty if nothing."""
    if not address.isprintable():
        return "a character that cannot be seen"
    if address.startswith("unix:"):
        return _fault_of_path(address.removeprefix("unix:"))
    if address.startswith(_OTHER_SCHEMES):
        return ""
    scheme = _TCP_SCHEME.match(address)
    rest = address[scheme.end() :] if scheme else address
    several = rest.split(",") if address.startswith(("ipv4:", "ipv6:")) else [rest]
    return next(filter(None, map(_fault_of_host_and_port, several)), "")


def _fault_of_path(path: str) -> str:
    if path.startswith("//") and not path.startswith("///"):
        return "another machine's path"
    name = path.removeprefix("//")
    if not name:
        return "no path"
    if len(os.fsencode(name)) >= _SOCKET_NAME_BYTES:
        return f"a path of more than {_SOCKET_NAME_BYTES - 1} bytes, too long for a socket"
    return ""


def _fault_of_host_and_port(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if "/" in text:
        return "a URL"
    if not colon or text.endswith("]"):
        return "no port" if text else "nothing"
    if not host or re.search(r"[\s@?#]", host):
        return "no host" if not host.strip() else "no name of a host"
    if ":" in host and not re.fullmatch(r"\[[0-9A-Fa-f:.]+(%\w+)?\]", host):
        return "colons in the host; an IPv6 address stands in brackets"
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        return "a port that is no number from 1 to 65535"
    return ""


def _read(field: str, path: str | Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        content = read_bytes(Path(path))
    except OSError as error:
        raise OSError(error.errno, f"{field}: {error.strerror}", str(path)) from None
    if b"-----BEGIN " not in content:
        raise ValueError(f'{field}: expected a PEM file, got "{escaped(str(path))}"')
    return content

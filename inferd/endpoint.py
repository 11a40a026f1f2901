"""Where a server is, how to trust it and what may be sent there: the same for the client and for `inferd health`."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

import grpc

from inferd.small_files import read_bytes

Metadata = tuple[tuple[str, str | bytes], ...]

# How gRPC lets an address say what kind it is: dns:NAME:PORT, dns://SERVER/NAME:PORT, ipv4:HOST:PORT, ipv6:HOST:PORT.
_TCP_SCHEME = re.compile(r"^(dns:(//[^/]*/)?|ipv[46]:)")


@dataclass(frozen=True, kw_only=True, slots=True)
class TLS:
    """How to trust the server, and how to be trusted by it.

    ``ca`` is a PEM file with the authorities to trust, by default gRPC's own list. ``certificate`` and ``key`` are the
    client's PEM files for mutual TLS. ``server_name`` is the name that the server's certificate must have where it is
    not the address's.
    """

    ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            msg = "certificate and key: expected both or none"
            raise ValueError(msg)

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files."""
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca), private_key=_read(self.key), certificate_chain=_read(self.certificate)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """A server's address, with what connections there need and what each call brings along.

    Raises `ValueError` if the address is none, or if the token would travel in clear text to another machine without
    being allowed to.
    """

    address: str
    tls: TLS | None = None
    token: str | None = None
    allow_insecure_token: bool = False

    def __post_init__(self) -> None:
        if "://" in self.address and not self.address.startswith(("dns://", "unix://", "xds://")):
            raise ValueError(f'address is "{self.address}", expected HOST:PORT')
        protected = self.tls is not None or self.allow_insecure_token or is_loopback(self.address)
        if self.token is not None and not protected:
            raise ValueError(
                f'the token would travel to "{self.address}" for everyone on the way to read: use TLS, or allow '
                "insecure tokens if something else protects the connection"
            )

    def metadata(self) -> Metadata:
        """Return what each call brings along."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)

    def options(self) -> dict[str, str | int]:
        """Return the options of gRPC that this address needs."""
        options: dict[str, str | int] = {}
        if is_loopback(self.address):
            # The environment's http_proxy is meant for other machines.
            options["grpc.enable_http_proxy"] = 0
        if self.tls is not None and self.tls.server_name is not None:
            options["grpc.ssl_target_name_override"] = self.tls.server_name
        return options


def is_loopback(address: str) -> bool:
    """Whether what is sent to ``address`` stays on this machine; anything unclear counts as not."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    endpoint = _TCP_SCHEME.sub("", address)
    host = (endpoint.rpartition(":")[0] or endpoint).strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(path: str | Path | None) -> bytes | None:
    return None if path is None else read_bytes(Path(path))

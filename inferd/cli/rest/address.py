"""Addresses of HTTP servers, with the credentials of connections and the headers of each request."""

import re
import ssl
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from inferd import addresses
from inferd.arguments import checked_token
from inferd.endpoint import TLS, require_protected_token
from inferd.plain_text import clipped, escaped

_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_SCHEMES = ("http", "https")


def is_url(address: str) -> bool:
    """Whether ``address`` is a URL rather than an address of gRPC, whose prefixes have one slash or three."""
    match = _SCHEME.match(address)
    return match is not None and match[0].lower() not in ("dns://", "xds://")


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpAddress:
    """``http://HOST[:PORT][/PREFIX]`` or ``https://…``, with TLS and token.

    Raises `ValueError` for an invalid address, for TLS options without https, or if the token would be sent in clear
    text to another machine without being allowed to.
    """

    url: str
    tls: TLS | None = None
    token: str | None = None
    allow_insecure_token: bool = False

    def __post_init__(self) -> None:
        fault = _fault(self.url)
        if fault:
            shown = escaped(clipped(self.url))
            raise ValueError(f'address is "{shown}", expected http://HOST:PORT or https://HOST:PORT, got {fault}')
        if self.tls is not None and not self.is_https:
            raise ValueError(f"TLS options: expected an address with https://, got {self.url}")
        if self.token is not None:
            checked_token(self.token)
        protected = self.is_https or self.allow_insecure_token or self.is_loopback
        require_protected_token(self.url, self.token, protected=protected)

    @property
    def is_https(self) -> bool:
        """Whether connections use TLS."""
        return self.scheme == "https"

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine."""
        return addresses.is_loopback(self.host)

    @property
    def host(self) -> str:
        """The host, without brackets."""
        return self._parts.hostname or ""

    @property
    def base(self) -> str:
        """What the paths of the protocol follow: without a slash at its end."""
        return self.url.rstrip("/")

    @property
    def scheme(self) -> str:
        """In lower case."""
        return self._parts.scheme

    def headers(self) -> dict[str, str]:
        """Return the headers of each request."""
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}

    def ssl_context(self) -> ssl.SSLContext:
        """Read the certificates. Raises `OSError` or `ValueError`; both name the option."""
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.tls is None:
            return context
        ca, certificate, _ = self.tls.contents()
        try:
            if ca is not None:
                context = ssl.create_default_context(cadata=ca.decode("ascii", "ignore"))
            if certificate is not None:
                # Only files are taken; they have been read above for the errors' sake.
                context.load_cert_chain(str(self.tls.certificate), str(self.tls.key))
        except ssl.SSLError as error:
            raise ValueError(f"ca, certificate and key: expected PEM files that fit together: {error.reason}") from None
        return context

    @property
    def _parts(self) -> SplitResult:
        return urlsplit(self.url)


def _fault(url: str) -> str:
    """Return what is wrong with a URL; empty if nothing."""
    if not url.isprintable() or " " in url:
        return "a character that cannot be seen"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return str(error)
    faults = {
        f"the scheme {parts.scheme}": parts.scheme not in _SCHEMES,
        "no host": not parts.hostname,
        "a user; the token comes from --token-file": "@" in parts.netloc,
        "a query or fragment": bool(parts.query or parts.fragment),
        "port 0": port == 0,
    }
    return next((fault for fault, is_so in faults.items() if is_so), "")

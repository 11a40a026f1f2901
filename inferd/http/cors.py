"""Cross-origin requests of web pages (CORS)."""

from collections.abc import Collection, Mapping
from functools import lru_cache
from ipaddress import ip_address

from aiohttp import hdrs, web

from inferd.http.errors import ErrorAnswer, plain_error
from inferd.http.messages import JSON_LENGTH_HEADER
from inferd.plain_text import quoted

#: Allows every origin.
ANY_ORIGIN = "*"

_METHODS = "GET, HEAD, POST, PUT, DELETE"
#: How long browsers may keep the answer to a preflight request.
_MAX_AGE_S = 600
#: Headers of answers that pages may read, besides those that the standard allows.
_EXPOSED = ", ".join(
    (
        JSON_LENGTH_HEADER,
        "Retry-After",
        "Retry-After-Ms",
        "WWW-Authenticate",
        "X-Request-Id",
        "Inferd-Timing",
        "Endpoint-Load-Metrics-Bin",
    )
)
_SAFE_METHODS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})
#: The values of Sec-Fetch-Site for pages of another origin.
_FOREIGN = frozenset({"cross-site", "same-site"})


class CrossOrigin:
    """Decides which pages may call the server: those of ``origins``, or all if that contains ``*``.

    Preflight requests are answered without authentication, as the standard demands. Other pages may not call operations
    that change something: a browser sends some such requests without asking, and only hides the answer.

    With ``is_private``, only this machine can connect, and needs no credential. Then browsers must not use a host name
    that others may own: the owner could serve a page under it and then point it at this machine, which makes that page
    the server's own ("DNS rebinding"). Names of ``origins`` are allowed, for proxies.
    """

    def __init__(self, origins: Collection[str], *, is_private: bool = False, error: ErrorAnswer = plain_error) -> None:
        self._any = ANY_ORIGIN in origins
        self._origins = frozenset(origins)
        self._hosts = frozenset(origin.partition("://")[2] for origin in origins)
        self._is_private = is_private
        self._error = error

    def intercept(self, request: web.BaseRequest) -> web.StreamResponse | None:
        """Return the answer to a preflight request, or to one that the page may not send; else None."""
        headers = request.headers
        origin = headers.get(hdrs.ORIGIN)
        if origin is None and request.method not in _SAFE_METHODS:
            # Browsers name the origin then.
            return None
        if self._is_private and not self._any and self._is_foreign(headers.get(hdrs.HOST, "")):
            host = quoted(headers.get(hdrs.HOST, ""))
            expected = "expected an address or localhost in the header Host, or one of server.http.cors_origins"
            return self._error(403, f"{expected}, got {host}")
        if origin is None:
            return None
        is_allowed = self._any or origin in self._origins
        if request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in headers and self._origins:
            return _preflight(request) if is_allowed else self._forbid()
        if is_allowed or request.method in _SAFE_METHODS or _is_own_page(origin, headers):
            return None
        return self._forbid()

    def add_headers(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Add the headers to ``response`` that let the page read it."""
        if not self._origins or response.prepared:
            return
        headers = response.headers
        if self._any:
            # Never with credentials, such as client certificates.
            headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = ANY_ORIGIN
            headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED
            return
        headers.add(hdrs.VARY, hdrs.ORIGIN)
        origin = request.headers.get(hdrs.ORIGIN)
        if origin in self._origins:
            headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
            headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED

    def _is_foreign(self, host: str) -> bool:
        return host not in self._hosts and _is_public_name(host)

    def _forbid(self) -> web.Response:
        return self._error(403, "pages of this origin may not call this: see server.http.cors_origins")


def _preflight(request: web.BaseRequest) -> web.Response:
    headers = {
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: _METHODS,
        hdrs.ACCESS_CONTROL_MAX_AGE: str(_MAX_AGE_S),
        hdrs.VARY: f"{hdrs.ACCESS_CONTROL_REQUEST_METHOD}, {hdrs.ACCESS_CONTROL_REQUEST_HEADERS}",
    }
    wanted = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS)
    if wanted is not None:
        headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = wanted
    return web.Response(status=204, headers=headers)


def _is_own_page(origin: str, headers: Mapping[str, str]) -> bool:
    """Return True if a browser's request comes from a page of this server."""
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in _FOREIGN
    # Without TLS, browsers send it to their own machine only.
    return origin.partition("://")[2] == headers.get(hdrs.HOST)


@lru_cache(maxsize=256)
def _is_public_name(host: str) -> bool:
    """Return True if ``host``, with or without a port, is a public name: no address, and no local name."""
    name = host.partition(":")[0].rstrip(".").lower()
    if "." not in name or name.endswith(".localhost"):
        return False
    try:
        ip_address(name)
    except ValueError:
        return True
    return False

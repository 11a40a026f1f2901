"""Requests from web pages of other origins (CORS)."""

from collections.abc import Collection

from aiohttp import hdrs, web

#: Stands for every origin.
ANY_ORIGIN = "*"

_METHODS = "GET, HEAD, POST, PUT, DELETE"
#: How long browsers may keep the answer to a preflight request.
_MAX_AGE_S = 600
#: What pages may read of an answer, besides what all of them may.
_EXPOSED = ", ".join(
    (
        "Inference-Header-Content-Length",
        "Retry-After",
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
    """Which pages may call the server: those of ``origins``, or of all if that contains ``*``.

    Preflight requests are answered without authentication, as the standard has it. Other pages may not call operations
    that change something: a browser sends some such requests without asking, and only hides the answer.
    """

    def __init__(self, origins: Collection[str]) -> None:
        self._any = ANY_ORIGIN in origins
        self._origins = frozenset(origins)

    def refuse(self, request: web.BaseRequest) -> web.StreamResponse | None:
        """Return the answer to a preflight request, or to one that the page may not send; None for all others."""
        headers = request.headers
        origin = headers.get(hdrs.ORIGIN)
        if origin is None:
            return None
        is_allowed = self._any or origin in self._origins
        if request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in headers and self._origins:
            return _preflight(request) if is_allowed else _forbidden()
        if is_allowed or request.method in _SAFE_METHODS or headers.get("Sec-Fetch-Site") not in _FOREIGN:
            return None
        return _forbidden()

    def allow(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Add the headers that let the page read ``response``."""
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


def _forbidden() -> web.Response:
    return web.Response(status=403, text="pages of this origin may not call this: see server.http.cors_origins\n")

"""Requests from pages of other origins."""

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from inferd.http.cors import CrossOrigin
from inferd.observability.trailers import ID_METADATA, LOAD_METADATA, TIMING_METADATA

APP = "https://app.example"


def asked(cors: CrossOrigin, method: str = "POST", **headers: str) -> tuple[web.StreamResponse, bool]:
    """Return the answer to a request of a page, and whether it comes from the handler."""
    request = make_mocked_request(method, "/v2/models/m/infer", {k.replace("_", "-"): v for k, v in headers.items()})
    refused = cors.intercept(request)
    response = refused or web.Response(text="answer")
    cors.add_headers(request, response)
    return response, refused is None


def preflight(cors: CrossOrigin, origin: str, **headers: str) -> web.StreamResponse:
    asks = {"Origin": origin, "Access_Control_Request_Method": "POST", **headers}
    response, from_handler = asked(cors, "OPTIONS", **asks)
    assert not from_handler
    return response


def test_preflight_of_an_allowed_page() -> None:
    """Answered without the handler, so without authentication."""
    response = preflight(CrossOrigin([APP]), APP, Access_Control_Request_Headers="authorization, content-type")
    assert response.status == 204
    assert response.headers["Access-Control-Allow-Origin"] == APP
    assert "POST" in response.headers["Access-Control-Allow-Methods"]
    assert response.headers["Access-Control-Allow-Headers"] == "authorization, content-type"
    assert "Origin" in ", ".join(response.headers.getall("Vary"))


def test_preflight_of_another_page() -> None:
    """Refused; it names no origin."""
    response = preflight(CrossOrigin([APP]), "https://evil.example")
    assert response.status == 403
    assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize(
    "origin", ["https://app.example.evil", "http://app.example", "https://APP.example", "null", "https://app.example:8"]
)
def test_only_exact_origins(origin: str) -> None:
    """No prefixes, other schemes, spellings or ports."""
    response, _ = asked(CrossOrigin([APP]), "GET", Origin=origin)
    assert "Access-Control-Allow-Origin" not in response.headers


def test_page_may_read_the_answer() -> None:
    """Also the headers of answers, and with the browser's credentials; caches tell origins apart."""
    response, from_handler = asked(CrossOrigin([APP]), Origin=APP)
    assert from_handler
    assert response.headers["Access-Control-Allow-Origin"] == APP
    assert response.headers["Access-Control-Allow-Credentials"] == "true"
    exposed = response.headers["Access-Control-Expose-Headers"].lower().split(", ")
    assert {"inference-header-content-length", "retry-after", ID_METADATA, TIMING_METADATA, LOAD_METADATA} <= {*exposed}
    assert response.headers["Vary"] == "Origin"


def test_caches_tell_origins_apart_without_one() -> None:
    """An answer to another client must not be reused for a page."""
    response, _ = asked(CrossOrigin([APP]))
    assert response.headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize("origins", [["*"], [APP, "*"]])
def test_any_origin_never_with_credentials(origins: list[str]) -> None:
    """Otherwise any page could use a client certificate of the browser."""
    response, from_handler = asked(CrossOrigin(origins), Origin=APP, Sec_Fetch_Site="cross-site")
    assert from_handler
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in response.headers
    assert preflight(CrossOrigin(origins), "null").headers["Access-Control-Allow-Origin"] == "*"


def test_off() -> None:
    """No headers; OPTIONS is for the handler."""
    response, from_handler = asked(CrossOrigin([]), "OPTIONS", Origin=APP, Access_Control_Request_Method="POST")
    assert from_handler
    assert not any(name.lower().startswith("access-control") or name == "Vary" for name in response.headers)


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_pages_change_nothing(site: str) -> None:
    """A browser sends some requests without asking first."""
    for cors in (CrossOrigin([]), CrossOrigin([APP])):
        response, from_handler = asked(cors, Origin="https://evil.example", Sec_Fetch_Site=site)
        assert (response.status, from_handler) == (403, False)
        assert asked(cors, "GET", Origin="https://evil.example", Sec_Fetch_Site=site)[1]


def test_own_page() -> None:
    """The status page may call everything, behind proxies too."""
    assert asked(CrossOrigin([]), Origin="https://inferd.example", Sec_Fetch_Site="same-origin")[1]


@pytest.mark.parametrize(
    ("origin", "host", "is_own"),
    [
        ("http://inferd.example:8000", "inferd.example:8000", True),
        ("http://inferd.example", "inferd.example", True),
        ("http://evil.example", "inferd.example:8000", False),
        ("http://inferd.example:9000", "inferd.example:8000", False),
        ("null", "inferd.example:8000", False),
    ],
)
def test_pages_without_sec_fetch_site(origin: str, host: str, is_own: bool) -> None:
    """Browsers send it over TLS and to their own machine only; so another page is known by its origin."""
    assert asked(CrossOrigin([]), Origin=origin, Host=host)[1] is is_own
    assert asked(CrossOrigin([APP]), Origin=APP, Host=host)[1]


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        *((host, True) for host in ("127.0.0.1:8000", "[::1]:8000", "localhost", "a.localhost:8000", "inferd", "")),
        ("app.example", True),
        *((host, False) for host in ("evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example.", "a.b")),
    ],
)
def test_names_of_a_private_server(host: str, is_allowed: bool) -> None:
    """A page whose name was pointed at this machine would be the server's own, so that it could read everything."""
    private = CrossOrigin([APP], is_private=True)
    own = {"Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin", "Host": host}
    assert asked(private, "GET", Host=host)[1] is is_allowed
    assert asked(private, "POST", **own)[1] is is_allowed
    assert asked(private, "POST", Host=host)[1], "no browser"
    assert asked(CrossOrigin([APP]), "GET", Host=host)[1]
    assert asked(CrossOrigin(["*"], is_private=True), "GET", Host=host)[1]

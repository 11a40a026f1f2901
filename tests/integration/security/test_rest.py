"""Credentials, rules and quotas over HTTP are those of gRPC, through the same servers."""

import http.client
import json
import ssl
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from tests.certificates import HOUR, Authority, Pair
from tests.integration.security.conftest import Secured
from tests.issuer import Issuer
from tests.patience import PATIENCE_S

INFER = ("POST", "/v2/models/digits/infer")
OTHER_INFER = ("POST", "/v2/models/secret-model/infer")
METADATA = ("GET", "/v2/models/digits")
OTHER_METADATA = ("GET", "/v2/models/secret-model")
INDEX = ("POST", "/v2/repository/index")
LOAD = ("POST", "/v2/repository/models/digits/load")
LIVE = ("GET", "/v2/health/live")
NOWHERE = ("GET", "/v3/models")
WRONG_VERB = ("GET", "/v2/models/digits/infer")

#: By name of the caller, what it gets. 400: allowed, but the body is no request.
RULES = {
    "alice": {INFER: 400, OTHER_INFER: 404, METADATA: 200, OTHER_METADATA: 404, LOAD: 403},
    "bob": {INFER: 403, METADATA: 200, OTHER_METADATA: 200, LOAD: 403},
    "operator": {INFER: 400, OTHER_INFER: 400, METADATA: 200, INDEX: 200, LOAD: 200},
    "somebody": {INFER: 403, METADATA: 403, INDEX: 403, LIVE: 200, NOWHERE: 404, WRONG_VERB: 405},
}


def ask(
    secured: Secured,
    operation: tuple[str, str],
    headers: Mapping[str, str] | None = None,
    trusting: ssl.SSLContext | None = None,
) -> tuple[int, Mapping[str, str], dict[str, object]]:
    """Return the status, the headers and the JSON of an answer."""
    address = secured.server.rest
    assert address is not None, "HTTP is on"
    host, port = "localhost", int(address.rpartition(":")[2])
    connection = (
        http.client.HTTPConnection(host, port, timeout=PATIENCE_S)
        if trusting is None
        else http.client.HTTPSConnection(host, port, timeout=PATIENCE_S, context=trusting)
    )
    try:
        method, path = operation
        connection.request(method, path, b"{}" if method == "POST" else None, dict(headers or {}))
        answer = connection.getresponse()
        body = answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, json.loads(body or b"{}")
    finally:
        connection.close()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("name", RULES)
def test_rules_with_tokens(secured: Secured, name: str) -> None:
    """Each caller may do what its rules say."""
    found = {operation: ask(secured, operation, bearer(f"inferd_{name}"))[0] for operation in RULES[name]}
    assert found == RULES[name]


def test_rules_with_web_tokens(secured: Secured, issuer: Issuer) -> None:
    """Of an issuer, for the same names."""
    found = {operation: ask(secured, operation, bearer(issuer.token("alice")))[0] for operation in RULES["alice"]}
    assert found == RULES["alice"]


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({}, "expected an authorization header with a bearer token"),
        ({"Authorization": "Basic YTpi"}, 'expected an authorization header of the form "Bearer TOKEN"'),
        (bearer("wrong"), "the bearer token is not valid"),
        (bearer("inferd_expired"), "the bearer token has expired"),
    ],
)
def test_invalid_credentials(secured: Secured, headers: dict[str, str], text: str) -> None:
    """401 with the challenge, before the model or the path is looked at; health stays open."""
    for operation in (INFER, METADATA, ("GET", "/v2/models/none"), NOWHERE, WRONG_VERB):
        status, answered, body = ask(secured, operation, headers)
        assert (status, answered["www-authenticate"], body["error"]) == (401, "Bearer", text)
    assert ask(secured, LIVE, headers)[0] == 200


def test_two_authorization_headers(secured: Secured) -> None:
    """Refused, as over gRPC: others on the way might look at another one."""
    address = secured.server.rest
    assert address is not None, "HTTP is on"
    connection = http.client.HTTPConnection("127.0.0.1", int(address.rpartition(":")[2]), timeout=PATIENCE_S)
    connection.putrequest("GET", METADATA[1])
    for name in ("alice", "operator"):
        connection.putheader("Authorization", f"Bearer inferd_{name}")
    connection.endheaders()
    assert connection.getresponse().status == 401
    connection.close()


def test_quota(secured: Secured) -> None:
    """One for both protocols; the answer says when to try again."""
    statuses = [ask(secured, INFER, bearer("inferd_limited")) for _ in range(2)]
    status, headers, body = statuses[1]
    assert status == 429
    assert int(headers["retry-after"]) >= 1
    assert int(str(body["retry_after_ms"])) > 0


def trusting(authority: Authority, folder: Path, own: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.pem.decode())
    if own is not None:
        files = own.save(folder, "client")
        context.load_cert_chain(files.certificate, files.key)
    return context


@pytest.mark.parametrize("name", RULES)
def test_rules_with_certificates(mutual: Secured, authority: Authority, tmp_path: Path, name: str) -> None:
    """The principal is the SPIFFE ID, as over gRPC."""
    context = trusting(authority, tmp_path, authority.issue(f"spiffe://inferd.test/{name}"))
    found = {operation: ask(mutual, operation, trusting=context)[0] for operation in RULES[name]}
    assert found == RULES[name]


@pytest.mark.parametrize(
    "names",
    [("alice.test",), ("spiffe://other.test/alice",), ("spiffe://inferd.test/alice", "spiffe://inferd.test/operator")],
)
def test_certificates_without_an_accepted_id(
    mutual: Secured, authority: Authority, tmp_path: Path, names: tuple[str, ...]
) -> None:
    """The handshake succeeds, but not the call."""
    context = trusting(authority, tmp_path, authority.issue(*names))
    status, _, body = ask(mutual, METADATA, trusting=context)
    assert (status, body["error"]) == (401, "the client certificate has no SPIFFE ID that is accepted")


@pytest.mark.parametrize("problem", ["none", "signed by another", "expired"])
def test_certificates_that_fail_the_handshake(
    mutual: Secured, authority: Authority, tmp_path: Path, problem: str
) -> None:
    """Where gRPC requires a certificate, HTTP does, for health too."""
    signer = Authority() if problem == "signed by another" else authority
    not_after = -HOUR if problem == "expired" else timedelta(hours=1)
    pair = signer.issue("spiffe://inferd.test/alice", not_before=-2 * HOUR, not_after=not_after)
    context = trusting(authority, tmp_path, None if problem == "none" else pair)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask(mutual, LIVE, trusting=context)

"""Client certificates with SPIFFE IDs."""

import grpc
import pytest

from inferd.config.security import SecuritySettings
from inferd.security.authentication.credentials import SnapshotStore
from inferd.security.authentication.identity import CredentialError, Identity
from inferd.security.authentication.interceptor import AuthenticationInterceptor
from inferd.security.authentication.spiffe import SpiffeVerifier
from inferd.security.authentication.stream_revoker import StreamRevoker
from inferd.security.authorization.quota import QuotaStore
from tests.unit.security.fakes import FakeCall, WallClock, bearer, table

ALICE = "spiffe://prod/ns/a/sa/alice"
PEM = b"-----BEGIN CERTIFICATE-----"


def _context(*uris: str, ids: list[str] | None = None) -> dict[str, list[bytes]]:
    """Return an authentication context as gRPC makes it: with an ID only if there is one URI."""
    named = list(uris) if ids is None else ids
    return {
        "x509_pem_cert": [PEM],
        "peer_uri": [uri.encode() for uri in uris],
        "peer_spiffe_id": [uri.encode() for uri in named],
    }


def test_accepts_ids_of_trusted_domains() -> None:
    """For as long as the connection is open."""
    SpiffeVerifier(["prod"]).verify(_context("spiffe://prod/..a/_.-Z9"))
    identity = SpiffeVerifier(["prod", "other"]).verify(_context(ALICE))
    assert identity == Identity(ALICE)
    assert SpiffeVerifier(["prod"]).revalidate(identity) == identity


@pytest.mark.parametrize(
    "context",
    [
        _context(),
        _context("spiffe://evil/ns/a/sa/alice"),
        _context("spiffe://prod.evil/alice"),
        _context("spiffe://prod"),
        _context("spiffe://prod/"),
        _context("https://prod/alice"),
        _context(ALICE, "spiffe://prod/bob"),
        _context(ALICE, "spiffe://prod/bob", ids=[ALICE]),
        _context("spiffe://prod/bob", ids=[ALICE]),
        _context("spiffe://prod/ä"),
        _context("spiffe://prod/ns//sa/alice"),
        _context("spiffe://prod/ns/a/sa/alice/"),
        _context("spiffe://prod/ns/b/../a/sa/alice"),
        _context("spiffe://prod/ns/a/sa/."),
        _context("spiffe://prod/ns/%61/sa/alice"),
        _context("spiffe://prod/ns/a/sa/alice?x"),
        _context("spiffe://prod/ns/a/sa/*"),
        _context("spiffe://prod:8443/ns/a/sa/alice"),
        _context("spiffe://PROD/ns/a/sa/alice"),
        _context("SPIFFE://prod/ns/a/sa/alice"),
        _context(ALICE + "\n"),
    ],
)
def test_rejects_other_certificates(context: dict) -> None:
    """Other domains, other or malformed URIs, none or several of them."""
    with pytest.raises(CredentialError, match=r"^the client certificate has no SPIFFE ID that is accepted$"):
        SpiffeVerifier(["prod"]).verify(context)


@pytest.fixture
def interceptor() -> AuthenticationInterceptor:
    snapshots, quotas = SnapshotStore(), QuotaStore()
    snapshots.update(tokens=table(bob="b"), spiffe=SpiffeVerifier(["prod"]))
    tls = {"cert_file": "a", "key_file": "b", "client_ca_file": "c", "client_certificates": "required"}
    settings = SecuritySettings(tokens_file="tokens.yaml", spiffe={"trust_domains": ["prod"]}, tls=tls)
    clock = WallClock(0.0)
    return AuthenticationInterceptor(
        settings, snapshots, quotas, StreamRevoker(snapshots, quotas, wall_clock=clock), wall_clock=clock
    )


def test_certificate_is_used_without_a_token(interceptor: AuthenticationInterceptor) -> None:
    """It does not stand in for an invalid token."""
    for _ in range(2):
        call = FakeCall(auth_context=_context(ALICE))
        assert interceptor.started(call) is None
        assert call.context.principal == ALICE
    call = FakeCall("/x/y", bearer("b"), auth_context=_context(ALICE))
    assert interceptor.started(call) is None
    assert call.context.principal == "token:bob"
    assert interceptor.started(FakeCall("/x/y", bearer("wrong"), auth_context=_context(ALICE))) is not None


def test_rejects_a_certificate_in_a_header(interceptor: AuthenticationInterceptor) -> None:
    """Certificates are public: anyone can send another's, which may be cached."""
    assert interceptor.started(FakeCall(auth_context=_context(ALICE))) is None
    for header in (PEM, PEM.decode()):
        assert interceptor.started(FakeCall("/x/y", ("authorization", header))) is not None


def test_names_both_credentials_if_neither_is_sent(interceptor: AuthenticationInterceptor) -> None:
    """A certificate without an accepted ID is named instead."""
    rejection = interceptor.started(FakeCall())
    assert rejection.details == (
        "expected an authorization header with a bearer token, or a client certificate with a SPIFFE ID"
    )
    rejection = interceptor.started(FakeCall(auth_context={**_context("spiffe://evil/a"), "x509_pem_cert": [b"other"]}))
    assert rejection.code is grpc.StatusCode.UNAUTHENTICATED
    assert "SPIFFE ID that is accepted" in rejection.details

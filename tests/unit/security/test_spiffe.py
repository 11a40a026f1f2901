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


def _proven(*uris: str, ids: list[str] | None = None) -> dict[str, list[bytes]]:
    """What gRPC tells of a connection; it names an id only if there is one URI."""
    named = list(uris) if ids is None else ids
    return {
        "x509_pem_cert": [PEM],
        "peer_uri": [uri.encode() for uri in uris],
        "peer_spiffe_id": [uri.encode() for uri in named],
    }


def test_an_identity_of_a_trusted_domain_is_taken() -> None:
    """As it is, for as long as its connection is open."""
    SpiffeVerifier(["prod"]).verify(_proven("spiffe://prod/..a/_.-Z9"))
    identity = SpiffeVerifier(["prod", "other"]).verify(_proven(ALICE))
    assert identity == Identity(ALICE)
    assert SpiffeVerifier(["prod"]).revalidate(identity) == identity


@pytest.mark.parametrize(
    "proven",
    [
        _proven(),
        _proven("spiffe://evil/ns/a/sa/alice"),
        _proven("spiffe://prod.evil/alice"),
        _proven("spiffe://prod"),
        _proven("spiffe://prod/"),
        _proven("https://prod/alice"),
        _proven(ALICE, "spiffe://prod/bob"),
        _proven(ALICE, "spiffe://prod/bob", ids=[ALICE]),
        _proven("spiffe://prod/bob", ids=[ALICE]),
        _proven("spiffe://prod/ä"),
        _proven("spiffe://prod/ns//sa/alice"),
        _proven("spiffe://prod/ns/a/sa/alice/"),
        _proven("spiffe://prod/ns/b/../a/sa/alice"),
        _proven("spiffe://prod/ns/a/sa/."),
        _proven("spiffe://prod/ns/%61/sa/alice"),
        _proven("spiffe://prod/ns/a/sa/alice?x"),
        _proven("spiffe://prod/ns/a/sa/*"),
        _proven("spiffe://prod:8443/ns/a/sa/alice"),
        _proven("spiffe://PROD/ns/a/sa/alice"),
        _proven("SPIFFE://prod/ns/a/sa/alice"),
        _proven(ALICE + "\n"),
    ],
)
def test_any_other_certificate_is_refused(proven: dict) -> None:
    """Other domains, other URIs, none or several of them."""
    with pytest.raises(CredentialError, match=r"^the client certificate has no SPIFFE ID that is accepted$"):
        SpiffeVerifier(["prod"]).verify(proven)


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


def test_a_certificate_counts_where_there_is_no_token(interceptor: AuthenticationInterceptor) -> None:
    """A token that does not hold is not made good by it."""
    for _ in range(2):
        call = FakeCall(proven=_proven(ALICE))
        assert interceptor.started(call) is None
        assert call.facts.principal == ALICE
    call = FakeCall("/x/y", bearer("b"), proven=_proven(ALICE))
    assert interceptor.started(call) is None
    assert call.facts.principal == "token:bob"
    assert interceptor.started(FakeCall("/x/y", bearer("wrong"), proven=_proven(ALICE))) is not None


def test_a_certificate_in_a_header_is_no_certificate(interceptor: AuthenticationInterceptor) -> None:
    """Everybody can have one of somebody else, who is known by it."""
    assert interceptor.started(FakeCall(proven=_proven(ALICE))) is None
    for header in (PEM, PEM.decode()):
        assert interceptor.started(FakeCall("/x/y", ("authorization", header))) is not None


def test_without_either_both_are_asked_for(interceptor: AuthenticationInterceptor) -> None:
    """And a certificate that is none of ours says so."""
    refusal = interceptor.started(FakeCall())
    assert refusal.details == (
        "expected an authorization header with a bearer token, or a client certificate with a SPIFFE ID"
    )
    refusal = interceptor.started(FakeCall(proven={**_proven("spiffe://evil/a"), "x509_pem_cert": [b"other"]}))
    assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
    assert "SPIFFE ID that is accepted" in refusal.details

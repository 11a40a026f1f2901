"""Verification of JSON Web Tokens, key sets, and fetching them."""

import http.client
import threading
import time
import urllib.error
from datetime import UTC, datetime, tzinfo
from email.message import Message

import jwt
import pytest

from inferd.config.security import JwtSettings
from inferd.security.authentication.credentials import CredentialCache, Snapshot
from inferd.security.authentication.identity import CredentialError
from inferd.security.authentication.json_web_tokens import JwksFetcher, JwtVerifier, KeySet, fetch
from inferd.security.authorization.quota import QuotaStore
from inferd.security.files import BadFileError
from tests.issuer import AUDIENCE, HOUR_S, NAME, Issuer, jwks
from tests.patience import PATIENCE_S
from tests.unit.security.fakes import WallClock, bearer

ISSUERS = {algorithm: Issuer("one", algorithm) for algorithm in ("RS256", "ES256", "EdDSA")}
NOW = 1_800_000_000


class FrozenDatetime(datetime):
    """The clock of PyJWT, fixed at ``NOW``."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        return datetime.fromtimestamp(NOW, tz or UTC)


@pytest.fixture(autouse=True)
def _fixed_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the time of issuers and of the verifier to ``NOW``."""
    monkeypatch.setattr(time, "time", lambda: float(NOW))
    monkeypatch.setattr("jwt.api_jwt.datetime", FrozenDatetime)


def _verifier(*issuers: Issuer, unknown: list | None = None, **settings: object) -> JwtVerifier:
    keys = KeySet.parse(jwks(*(issuer.jwk() for issuer in issuers)), "test")
    given = {"jwks_file": "keys.json", "issuer": NAME, "audience": [AUDIENCE], **settings}
    reported: list = [] if unknown is None else unknown
    return JwtVerifier(JwtSettings(**given), keys, lambda: reported.append("unknown"))


@pytest.fixture
def issuer() -> Issuer:
    return ISSUERS["ES256"]


@pytest.mark.parametrize("algorithm", ISSUERS)
def test_accepts_every_supported_algorithm(algorithm: str) -> None:
    """The principal is the subject, and expires with the token plus the leeway."""
    issuer = ISSUERS[algorithm]
    identity = _verifier(issuer).verify(issuer.token(exp=NOW + HOUR_S), 0)
    assert (identity.principal, identity.expires_at) == ("jwt:alice", NOW + HOUR_S + 30)


def test_principal_claim_is_configurable(issuer: Issuer) -> None:
    """The claim is then required."""
    verifier = _verifier(issuer, principal_claim="client_id")
    assert verifier.verify(issuer.token(client_id="web"), 0).principal == "jwt:web"
    with pytest.raises(CredentialError, match="not valid"):
        verifier.verify(issuer.token(), 0)


@pytest.mark.parametrize("token", ["", "a", "a.b", "inferd_secret", "a.b.c.d"])
def test_ignores_tokens_of_other_kinds(issuer: Issuer, token: str) -> None:
    """A JSON Web Token has three parts."""
    assert _verifier(issuer).verify(token, 0) is None


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://issuer.tes"},
        {"iss": None},
        {"aud": "other"},
        {"aud": None},
        {"exp": None},
        {"exp": "soon"},
        {"exp": 10**400},
        {"nbf": NOW + 60},
        {"iat": NOW + 60},
        {"subject": None},
        {"subject": ""},
        {"subject": "x" * 257},
        {"subject": "line\nbreak"},
    ],
    ids=lambda claims: str(claims)[:30],
)
def test_rejects_bad_claims(issuer: Issuer, claims: dict) -> None:
    """With the same text for all of them."""
    with pytest.raises(CredentialError) as caught:
        _verifier(issuer).verify(issuer.token(claims.pop("subject", "alice"), **claims), 0)
    assert str(caught.value) == "the bearer token is not valid"
    # A token that becomes valid in a minute must not be cached as invalid.
    assert caught.value.cacheable is ("nbf" not in claims and "iat" not in claims)


def test_rejects_expired_token(issuer: Issuer) -> None:
    """Beyond the leeway; the text says so, as the caller can renew it."""
    assert _verifier(issuer).verify(issuer.token(exp=NOW - 10), 0)
    with pytest.raises(CredentialError, match=r"^the bearer token has expired$"):
        _verifier(issuer).verify(issuer.token(exp=NOW - 60), 0)


@pytest.mark.parametrize("algorithm", ISSUERS)
def test_rejects_bad_signatures(algorithm: str) -> None:
    """None, an HMAC with the public key, another issuer's, and one over other claims."""
    issuer, other = ISSUERS[algorithm], Issuer("one", algorithm)
    header, body, signature = issuer.token().split(".")
    forged = [
        issuer.unsigned(),
        issuer.unsigned("None"),
        issuer.unsigned("HS256"),
        issuer.signed_with_the_public_key(),
        other.token(),
        f"{header}.{other.token('bob').split('.')[1]}.{signature}",
        f"{header}.{body}.",
        f"{header}.{body}.{signature[:-4]}AAAA",
        "..",
        "a.b.c",
    ]
    for token in forged:
        with pytest.raises(CredentialError, match=r"^the bearer token is not valid$"):
            _verifier(issuer).verify(token, 0)


def test_key_is_used_with_its_own_algorithm_only() -> None:
    """PyJWT could verify the token with the algorithm that it names."""
    issuer = ISSUERS["RS256"]
    token = jwt.encode({"sub": "a", "iss": NAME, "aud": AUDIENCE, "exp": NOW + 60}, issuer.key, "PS256", {"kid": "one"})
    with pytest.raises(CredentialError):
        _verifier(issuer).verify(token, 0)


def test_reports_unknown_keys(issuer: Issuer) -> None:
    """They may be new; a token that names a known key is not reported."""
    unknown: list = []
    verifier = _verifier(issuer, unknown=unknown)
    for token in (Issuer("two").token(), Issuer("").token()):
        with pytest.raises(CredentialError, match=r"^the bearer token is not valid$"):
            verifier.verify(token, 0)
    assert len(unknown) == 2
    with pytest.raises(CredentialError):
        verifier.verify(Issuer("one").token(), 0)
    assert len(unknown) == 2


def test_reports_an_unknown_key_for_each_token(issuer: Issuer) -> None:
    """The rejection is not cached: the key may be published by now."""
    unknown: list = []
    cache = CredentialCache(Snapshot(jwt=_verifier(issuer, unknown=unknown)), QuotaStore())
    _, header = bearer(Issuer("two").token())
    for _ in range(2):
        with pytest.raises(CredentialError, match="not valid"):
            cache.by_header(header, lambda: NOW)
    assert len(unknown) == 2


WITHOUT_ID = {"absent": {}, "null": {"kid": None}, "empty": {"kid": ""}}


def _without_id(issuer: Issuer) -> dict[str, object]:
    return {name: value for name, value in issuer.jwk().items() if name != "kid"}


def _verifier_of(keys: list[dict[str, object]], unknown: list) -> JwtVerifier:
    settings = JwtSettings(jwks_file="keys.json", issuer=NAME, audience=[AUDIENCE])
    return JwtVerifier(settings, KeySet.parse(jwks(*keys), "test"), lambda: unknown.append("unknown"))


@pytest.mark.parametrize("kid", WITHOUT_ID)
@pytest.mark.parametrize("algorithm", ISSUERS)
def test_accepts_keys_without_a_kid(kid: str, algorithm: str) -> None:
    """A kid is optional for keys and tokens; a token that another key has signed is rejected."""
    issuer, other = ISSUERS[algorithm], Issuer("", algorithm)
    unknown: list = []
    verifier = _verifier_of([{**_without_id(issuer), **WITHOUT_ID[kid]}], unknown)
    assert verifier.verify(issuer.token(), 0).principal == "jwt:alice"
    assert verifier.verify(issuer.token_without_kid(), 0).principal == "jwt:alice"
    assert unknown == []
    for token in (other.token(), other.token_without_kid(), issuer.unsigned(), issuer.signed_with_the_public_key()):
        with pytest.raises(CredentialError, match="not valid"):
            verifier.verify(token, 0)
    # Each may have been signed with a key that is not published yet.
    assert len(unknown) == 4


def test_tries_keys_of_its_algorithm_for_a_token_without_a_kid() -> None:
    """A limited number of them; the claims are checked as ever."""
    others = [Issuer(f"other {number}") for number in range(3)]
    last, beyond = Issuer("last"), Issuer("beyond")
    keys = [each.jwk() for each in (ISSUERS["RS256"], *others, last, beyond)]
    unknown: list = []
    verifier = _verifier_of(keys, unknown)
    assert verifier.verify(last.token_without_kid(), 0).principal == "jwt:alice"
    with pytest.raises(CredentialError, match="has expired"):
        verifier.verify(last.token_without_kid(exp=NOW - 60), 0)
    assert unknown == []
    with pytest.raises(CredentialError, match="not valid"):
        verifier.verify(beyond.token_without_kid(), 0)
    assert unknown == ["unknown"]


def test_does_not_try_keys_with_another_kid() -> None:
    """A token with a kid is verified with that key or one without a kid."""
    unknown: list = []
    verifier = _verifier_of([Issuer("two").jwk(), ISSUERS["ES256"].jwk(kid="three")], unknown)
    with pytest.raises(CredentialError, match="not valid"):
        verifier.verify(ISSUERS["ES256"].token(), 0)
    assert unknown == ["unknown"]


def test_revalidates_an_identity_of_a_key_without_a_kid(issuer: Issuer) -> None:
    """For as long as the key is published, with or without a kid."""
    identity = _verifier_of([_without_id(issuer)], []).verify(issuer.token(), 0)
    assert _verifier(issuer).revalidate(identity) == identity
    assert _verifier_of([_without_id(Issuer())], []).revalidate(identity) is None


def test_compares_keys_without_a_kid() -> None:
    """So that a replaced key at a URL is noticed."""
    first, same, second = (
        KeySet.parse(jwks(_without_id(each)), "test") for each in (ISSUERS["ES256"],) * 2 + (Issuer(),)
    )
    assert first == same != second


def test_revalidates_an_identity_while_its_key_is_published(issuer: Issuer) -> None:
    """Under any kid, but not if another key has its kid."""
    identity = _verifier(issuer).verify(issuer.token(), 0)
    assert _verifier(Issuer("two"), issuer).revalidate(identity) == identity
    assert _verifier(Issuer("one")).revalidate(identity) is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected a JSON Web Key Set"),
        ("[]", "expected a JSON Web Key Set"),
        ('{"keys": 1}', "expected a list of keys"),
        (jwks(), "expected a key for RS256"),
        (jwks(ISSUERS["ES256"].jwk(kid=1)), "expected a key for RS256"),
        (jwks(*(Issuer().jwk(kid=None) for _ in range(5))), "expected at most 4 keys without a kid for ES256, got 5"),
        (jwks(ISSUERS["ES256"].jwk(use="enc")), "expected a key for RS256"),
        (jwks(ISSUERS["ES256"].jwk(key_ops=["deriveKey"])), "expected a key for RS256"),
        (jwks(ISSUERS["ES256"].jwk(key_ops=None)), "expected a key for RS256"),
        (jwks(ISSUERS["ES256"].jwk(alg="ES384")), "expected a key for RS256"),
        (jwks(Issuer("weak", "RS256", bits=1024).jwk()), "expected a key for RS256"),
        (jwks({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "one"}), "expected a key for RS256"),
        (jwks({"kty": "oct", "k": "UExBTlRFRA", "kid": "one"}), "expected public keys only"),
        (jwks(ISSUERS["ES256"].jwk(), Issuer("one").jwk()), "expected one key for each kid"),
    ],
)
def test_rejects_bad_key_sets(text: str, complaint: str) -> None:
    """Those without a supported key, with private keys, and malformed ones."""
    with pytest.raises(BadFileError, match=complaint) as caught:
        KeySet.parse(text, "keys.json")
    assert "UExBTlRFRA" not in str(caught.value)


def test_skips_unsupported_keys(issuer: Issuer) -> None:
    """An issuer may publish them beside supported ones."""
    keys = KeySet.parse(jwks(Issuer("weak", "RS256", bits=1024).jwk(), issuer.jwk()), "test")
    assert (keys.get("weak"), keys.get("one").algorithm, keys.get(None)) == (None, "ES256", None)


class Url:
    """A fake URL with the keys of an issuer, or an error."""

    def __init__(self, *issuers: Issuer) -> None:
        self.fetched = threading.Semaphore(0)
        self.publish(*issuers)

    def publish(self, *issuers: Issuer) -> None:
        self.content: bytes | Exception = jwks(*(issuer.jwk() for issuer in issuers)).encode()

    def __call__(self, _url: str) -> bytes:
        self.fetched.release()
        if isinstance(self.content, Exception):
            raise self.content
        return self.content


def test_fetcher_passes_on_changed_keys(issuer: Issuer) -> None:
    """A failed fetch changes only the age of the keys."""
    url, clock, found = Url(issuer), WallClock(100.0), []
    source = JwksFetcher("https://issuer.test", period_s=60, on_keys=found.append, fetch=url, clock=clock)
    clock.now += 2
    assert source.age_s() == 2
    source.refresh()
    source.refresh()
    assert len(found) == 1
    clock.now += 5
    for content in (OSError("down"), b"<html>"):
        url.content = content
        source.refresh()
    assert (len(found), source.age_s(), source.failures) == (1, 5.0, 2)
    url.publish(issuer, Issuer("two"))
    source.refresh()
    assert (found[1].get("two") is not None, source.age_s()) == (True, 0.0)


def test_fetcher_limits_the_rate_of_requested_fetches(issuer: Issuer) -> None:
    """Anyone can make tokens with unknown keys."""
    url, clock = Url(issuer), WallClock(100.0)
    source = JwksFetcher("https://issuer.test", period_s=600, on_keys=lambda _: None, fetch=url, clock=clock)
    source.start()
    assert url.fetched.acquire(timeout=PATIENCE_S)
    clock.now += 9
    source.request()
    clock.now += 1
    for _ in range(100):
        source.request()
    assert url.fetched.acquire(timeout=PATIENCE_S)
    source.stop()
    assert not url.fetched.acquire(blocking=False)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (urllib.error.HTTPError("https://issuer.test", 503, "PLANTED", Message(), None), "HTTP status 503"),
        (http.client.BadStatusLine("PLANTED"), "expected an HTTP response, got BadStatusLine"),
        (OSError("no route"), "no route"),
    ],
)
def test_does_not_log_text_from_the_remote_side(
    caplog: pytest.LogCaptureFixture, error: Exception, reason: str
) -> None:
    """Only the status or the kind of error."""
    url = Url()
    url.content = error
    JwksFetcher("https://issuer.test", period_s=600, on_keys=lambda _: None, fetch=url).refresh()
    assert [record.reason for record in caplog.records] == [reason]


def test_fetches_http_only(tmp_path) -> None:
    """The settings reject file URLs."""
    with pytest.raises(ValueError, match="expected https"):
        JwtSettings(jwks_url=f"file://{tmp_path}", issuer="a", audience=["b"])
    with pytest.raises(OSError, match=r"refused|failed"):
        fetch("http://127.0.0.1:9/keys")


@pytest.mark.parametrize(
    "url", ["http://issuer.test/keys", "https://user:PLANTED@issuer.test", "ftp://localhost", "keys", "https://[", ""]
)
def test_rejects_unsafe_urls_without_quoting_them(url: str) -> None:
    """They may contain a password."""
    with pytest.raises(ValueError, match="expected https") as caught:
        JwtSettings(jwks_url=url, issuer="a", audience=["b"])
    assert "PLANTED" not in caught.value.errors()[0]["msg"]

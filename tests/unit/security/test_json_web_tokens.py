"""JSON Web Tokens: which are taken, which are not, and what is told of those."""

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
    """What PyJWT takes the time from, standing still."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        return datetime.fromtimestamp(NOW, tz or UTC)


@pytest.fixture(autouse=True)
def _time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ``NOW`` for issuers and for the verifier, however long the tests before this one have taken."""
    monkeypatch.setattr(time, "time", lambda: float(NOW))
    monkeypatch.setattr("jwt.api_jwt.datetime", FrozenDatetime)


def _verifier(*issuers: Issuer, unknown: list | None = None, **settings: object) -> JwtVerifier:
    keys = KeySet.parse(jwks(*(issuer.jwk() for issuer in issuers)), "test")
    given = {"jwks_file": "keys.json", "issuer": NAME, "audience": [AUDIENCE], **settings}
    told: list = [] if unknown is None else unknown
    return JwtVerifier(JwtSettings(**given), keys, lambda: told.append("unknown"))


@pytest.fixture
def issuer() -> Issuer:
    return ISSUERS["ES256"]


@pytest.mark.parametrize("algorithm", ISSUERS)
def test_tokens_of_every_algorithm_of_ours_are_taken(algorithm: str) -> None:
    """The identity is the subject's, and lasts as long as the token and what clocks may differ by."""
    issuer = ISSUERS[algorithm]
    identity = _verifier(issuer).verify(issuer.token(exp=NOW + HOUR_S), 0)
    assert (identity.principal, identity.expires_at) == ("jwt:alice", NOW + HOUR_S + 30)


def test_another_claim_may_name_the_caller(issuer: Issuer) -> None:
    """And then has to be there."""
    verifier = _verifier(issuer, principal_claim="client_id")
    assert verifier.verify(issuer.token(client_id="web"), 0).principal == "jwt:web"
    with pytest.raises(CredentialError, match="not valid"):
        verifier.verify(issuer.token(), 0)


@pytest.mark.parametrize("token", ["", "a", "a.b", "inferd_secret", "a.b.c.d"])
def test_what_is_no_such_token_is_for_others_to_know(issuer: Issuer, token: str) -> None:
    """It has three parts or it is something else."""
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
def test_claims_that_do_not_fit_are_refused(issuer: Issuer, claims: dict) -> None:
    """With one text for all of them."""
    with pytest.raises(CredentialError) as caught:
        _verifier(issuer).verify(issuer.token(claims.pop("subject", "alice"), **claims), 0)
    assert str(caught.value) == "the bearer token is not valid"
    # What will be valid in a minute must not be remembered as invalid.
    assert caught.value.cacheable is ("nbf" not in claims and "iat" not in claims)


def test_an_expired_token_says_so(issuer: Issuer) -> None:
    """Beyond the leeway; the caller can do something about it."""
    assert _verifier(issuer).verify(issuer.token(exp=NOW - 10), 0)
    with pytest.raises(CredentialError, match=r"^the bearer token has expired$"):
        _verifier(issuer).verify(issuer.token(exp=NOW - 60), 0)


@pytest.mark.parametrize("algorithm", ISSUERS)
def test_signatures_that_are_none_are_refused(algorithm: str) -> None:
    """No signature, one with the public key as a secret, another issuer's, and none over changed claims."""
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


def test_a_key_is_used_with_its_own_algorithm_only() -> None:
    """Whatever the token says, and although the library would do it."""
    issuer = ISSUERS["RS256"]
    token = jwt.encode({"sub": "a", "iss": NAME, "aud": AUDIENCE, "exp": NOW + 60}, issuer.key, "PS256", {"kid": "one"})
    with pytest.raises(CredentialError):
        _verifier(issuer).verify(token, 0)


def test_an_unknown_key_is_told(issuer: Issuer) -> None:
    """It may be a new one; a token with a known one tells nothing, however wrong."""
    unknown: list = []
    verifier = _verifier(issuer, unknown=unknown)
    for token in (Issuer("two").token(), Issuer("").token()):
        with pytest.raises(CredentialError, match=r"^the bearer token is not valid$"):
            verifier.verify(token, 0)
    assert len(unknown) == 2
    with pytest.raises(CredentialError):
        verifier.verify(Issuer("one").token(), 0)
    assert len(unknown) == 2


def test_an_unknown_key_is_told_each_time_that_a_token_comes(issuer: Issuer) -> None:
    """The key may not have been published the first time, or its URL been asked just before."""
    unknown: list = []
    known = CredentialCache(Snapshot(jwt=_verifier(issuer, unknown=unknown)), QuotaStore())
    _, header = bearer(Issuer("two").token())
    for _ in range(2):
        with pytest.raises(CredentialError, match="not valid"):
            known.by_header(header, lambda: NOW)
    assert len(unknown) == 2


WITHOUT_ID = {"absent": {}, "null": {"kid": None}, "empty": {"kid": ""}}


def _without_id(issuer: Issuer) -> dict[str, object]:
    return {name: value for name, value in issuer.jwk().items() if name != "kid"}


def _verifier_of(keys: list[dict[str, object]], unknown: list) -> JwtVerifier:
    settings = JwtSettings(jwks_file="keys.json", issuer=NAME, audience=[AUDIENCE])
    return JwtVerifier(settings, KeySet.parse(jwks(*keys), "test"), lambda: unknown.append("unknown"))


@pytest.mark.parametrize("kid", WITHOUT_ID)
@pytest.mark.parametrize("algorithm", ISSUERS)
def test_a_key_without_a_kid(kid: str, algorithm: str) -> None:
    """It is optional, for keys and for tokens; what another key has signed is refused as ever."""
    issuer, other = ISSUERS[algorithm], Issuer("", algorithm)
    unknown: list = []
    verifier = _verifier_of([{**_without_id(issuer), **WITHOUT_ID[kid]}], unknown)
    assert verifier.verify(issuer.token(), 0).principal == "jwt:alice"
    assert verifier.verify(issuer.token_without_kid(), 0).principal == "jwt:alice"
    assert unknown == []
    for token in (other.token(), other.token_without_kid(), issuer.unsigned(), issuer.signed_with_the_public_key()):
        with pytest.raises(CredentialError, match="not valid"):
            verifier.verify(token, 0)
    # Any of these may be signed with a key that is not published yet.
    assert len(unknown) == 4


def test_a_token_without_a_kid_is_tried_with_every_key_of_its_algorithm() -> None:
    """But only with so many that it does not take long, and it has to fit otherwise."""
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


def test_a_key_with_another_kid_is_not_tried() -> None:
    """A token that names its key is of that one, or of one without a name."""
    unknown: list = []
    verifier = _verifier_of([Issuer("two").jwk(), ISSUERS["ES256"].jwk(kid="three")], unknown)
    with pytest.raises(CredentialError, match="not valid"):
        verifier.verify(ISSUERS["ES256"].token(), 0)
    assert unknown == ["unknown"]


def test_an_identity_of_a_key_without_a_kid_holds_as_long(issuer: Issuer) -> None:
    """As the key is published, with or without a kid."""
    identity = _verifier_of([_without_id(issuer)], []).verify(issuer.token(), 0)
    assert _verifier(issuer).revalidate(identity) == identity
    assert _verifier_of([_without_id(Issuer())], []).revalidate(identity) is None


def test_sets_differ_in_keys_without_a_kid() -> None:
    """So that a key that has been replaced at a URL is seen to be another one."""
    first, same, second = (
        KeySet.parse(jwks(_without_id(each)), "test") for each in (ISSUERS["ES256"],) * 2 + (Issuer(),)
    )
    assert first == same != second


def test_an_identity_holds_as_long_as_its_key_is_published(issuer: Issuer) -> None:
    """Under any id, but not if another key has its id."""
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
def test_bad_sets_of_keys_are_refused(text: str, complaint: str) -> None:
    """Keys that can do nothing for us alone, those that are not public, and what is no set."""
    with pytest.raises(BadFileError, match=complaint) as caught:
        KeySet.parse(text, "keys.json")
    assert "UExBTlRFRA" not in str(caught.value)


def test_keys_for_others_are_left_out(issuer: Issuer) -> None:
    """An issuer may publish keys that are not for us beside ours."""
    keys = KeySet.parse(jwks(Issuer("weak", "RS256", bits=1024).jwk(), issuer.jwk()), "test")
    assert (keys.get("weak"), keys.get("one").algorithm, keys.get(None)) == (None, "ES256", None)


class Url:
    """What an issuer publishes, until it cannot be reached."""

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


def test_keys_of_a_url_are_handed_over_when_they_are_new(issuer: Issuer) -> None:
    """A URL that is down, or has nonsense, changes nothing but the age of what there is."""
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


def test_an_unknown_key_has_the_url_fetched_but_not_often(issuer: Issuer) -> None:
    """Anybody can make tokens with unknown keys."""
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
def test_what_the_other_side_says_is_not_logged(
    caplog: pytest.LogCaptureFixture, error: Exception, reason: str
) -> None:
    """It may say anything; what it is comes to the log."""
    url = Url()
    url.content = error
    JwksFetcher("https://issuer.test", period_s=600, on_keys=lambda _: None, fetch=url).refresh()
    assert [record.reason for record in caplog.records] == [reason]


def test_only_http_is_fetched_and_no_redirects(tmp_path) -> None:
    """A name in a setting must not become a way to read files; the settings refuse it first."""
    with pytest.raises(ValueError, match="expected https"):
        JwtSettings(jwks_url=f"file://{tmp_path}", issuer="a", audience=["b"])
    with pytest.raises(OSError, match=r"refused|failed"):
        fetch("http://127.0.0.1:9/keys")


@pytest.mark.parametrize(
    "url", ["http://issuer.test/keys", "https://user:PLANTED@issuer.test", "ftp://localhost", "keys", "https://[", ""]
)
def test_unsafe_urls_are_refused_without_quoting_them(url: str) -> None:
    """They may have a password in them."""
    with pytest.raises(ValueError, match="expected https") as caught:
        JwtSettings(jwks_url=url, issuer="a", audience=["b"])
    assert "PLANTED" not in caught.value.errors()[0]["msg"]

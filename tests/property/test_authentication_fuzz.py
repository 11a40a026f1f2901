"""Arbitrary credentials get one status and a fixed text, and do not reach the log."""

import base64
import json
import logging

import grpc
from hypothesis import example, given
from hypothesis import strategies as st

from inferd.config.security import JwtSettings, SecuritySettings
from inferd.security.authentication.credentials import SnapshotStore
from inferd.security.authentication.interceptor import AuthenticationInterceptor
from inferd.security.authentication.json_web_tokens import JwtVerifier, KeySet
from inferd.security.authentication.stream_revoker import StreamRevoker
from inferd.security.authorization.quota import QuotaStore
from tests.issuer import AUDIENCE, NAME, Issuer, jwks
from tests.unit.call_context import known
from tests.unit.security.fakes import FakeCall, WallClock, table

ISSUER = Issuer()

#: All texts that unauthenticated callers may get.
TEXTS = {
    "expected an authorization header with a bearer token",
    'expected an authorization header of the form "Bearer TOKEN"',
    "expected one authorization header, got several",
    "the bearer token is not valid",
}


def _interceptor() -> AuthenticationInterceptor:
    settings = JwtSettings(jwks_file="keys.json", issuer=NAME, audience=[AUDIENCE])
    keys = KeySet.parse(jwks(ISSUER.jwk()), "test")
    snapshots, quotas = SnapshotStore(), QuotaStore()
    snapshots.update(tokens=table(alice="right"), jwt=JwtVerifier(settings, keys, lambda: None))
    clock = WallClock()
    revoker = StreamRevoker(snapshots, quotas, wall_clock=clock)
    security = SecuritySettings(tokens_file="tokens.yaml", jwt=settings)
    return AuthenticationInterceptor(security, snapshots, quotas, revoker, wall_clock=clock)


INTERCEPTOR = _interceptor()


def _part(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "alg": st.sampled_from(["none", "HS256", "ES256", "RS256", "EdDSA", "", "ES256K"]) | json_values,
        "kid": st.just("one") | json_values,
        "crit": json_values,
        "b64": st.booleans(),
        "typ": json_values,
        "zip": st.text(max_size=5),
    },
)
web_tokens = st.builds(
    lambda header, body, signature: f"{_part(json.dumps(header).encode())}.{_part(body)}.{_part(signature)}",
    headers,
    st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=80),
)
values = (
    st.text(max_size=60)
    | st.binary(max_size=60)
    | (st.text(max_size=60) | web_tokens).map(lambda token: f"Bearer {token}")
)
keys = st.just("authorization") | st.sampled_from(["x-api-key", "authorization-bin", "Authorization", ""])


@given(metadata=st.lists(st.tuples(keys, values), max_size=3))
@example(metadata=[("authorization", "Bearer " + "." * 9000)])
@example(metadata=[("authorization", "Bearer \ud800")])
@example(metadata=[("authorization", f"Bearer {ISSUER.unsigned()}")])
@example(metadata=[("authorization", f"Bearer {_part(b'[' * 9000)}.{_part(b'[' * 9000)}.AAAA")])
def test_rejects_arbitrary_metadata(metadata: list) -> None:
    """Always with the same status, and a text that quotes nothing."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger().addHandler(handler)
    try:
        call = FakeCall("/inferd.v1.InferenceService/Infer", *metadata)
        rejection = INTERCEPTOR.started(call)
        call.over()
    finally:
        logging.getLogger().removeHandler(handler)
    assert rejection is not None
    assert (rejection.code, known(call.context), call.annotations) == (grpc.StatusCode.UNAUTHENTICATED, {}, {})
    assert rejection.details in TEXTS
    assert records == []


@given(prefix=st.text(alphabet="Bb eErR", max_size=10), suffix=st.text(alphabet=" \t\nx", max_size=4))
def test_accepts_only_the_exact_token(prefix: str, suffix: str) -> None:
    """After the scheme and between spaces."""
    header = f"{prefix}right{suffix}"
    call = FakeCall("/inferd.v1.InferenceService/Infer", ("authorization", header))
    is_right = prefix[:7].lower() == "bearer " and not prefix[7:].strip(" ") and not suffix.strip(" ")
    assert (INTERCEPTOR.started(call) is None) is is_right

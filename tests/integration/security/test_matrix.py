"""Every state of every kind of credential, for every method, over real sockets."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import grpc
import pytest
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2  # noqa: F401  registers its descriptor
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from inferd._generated.inferd.v1 import inference_pb2 as own
from inferd._generated.inferd.v1 import inference_pb2_grpc as own_grpc
from inferd.api.reflection import SERVICE_NAMES as REFLECTION_NAMES
from inferd.security.authorization.methods import KNOWN_METHODS
from tests.certificates import HOUR, Authority
from tests.integration.security.calls import ABOUT_A_MODEL, ALL, CONTROL, Metadata, Method
from tests.integration.security.conftest import Secured
from tests.issuer import HOUR_S, Issuer
from tests.patience import PATIENCE_S

OK, UNAUTHENTICATED, UNAVAILABLE = (
    grpc.StatusCode.OK,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNAVAILABLE,
)
NOT_FOUND, FORBIDDEN = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED

#: Opens a channel, and returns it with the metadata for its calls.
Open = Callable[[], "tuple[grpc.Channel, Metadata]"]


@dataclass(frozen=True)
class Kind:
    """One kind of credential; ``bad`` has invalid ones with the expected status.

    The text is None, and gRPC's own, if the TLS handshake fails.
    """

    valid: Callable[[str], Open]
    bad: dict[str, tuple[Open, grpc.StatusCode, str | None]]


@pytest.fixture(scope="module")
def tokens(secured: Secured) -> Kind:
    def bearer(header: str | None) -> Open:
        metadata: Metadata = () if header is None else (("authorization", header),)
        return lambda: (secured.channel(), metadata)

    return Kind(
        valid=lambda name: bearer(f"Bearer inferd_{name}"),
        bad={
            "none": (bearer(None), UNAUTHENTICATED, "expected an authorization header with a bearer token"),
            "malformed": (
                bearer("Basic YTpi"),
                UNAUTHENTICATED,
                'expected an authorization header of the form "Bearer TOKEN"',
            ),
            "wrong": (bearer("Bearer wrong"), UNAUTHENTICATED, "the bearer token is not valid"),
            "expired": (bearer("Bearer inferd_expired"), UNAUTHENTICATED, "the bearer token has expired"),
        },
    )


@pytest.fixture(scope="module")
def web_tokens(secured: Secured, issuer: Issuer) -> Kind:
    def bearer(token: str) -> Open:
        return lambda: (secured.channel(), secured.bearer(token))

    invalid = (UNAUTHENTICATED, "the bearer token is not valid")
    return Kind(
        valid=lambda name: bearer(issuer.token(name)),
        bad={
            "unsigned": (bearer(issuer.unsigned()), *invalid),
            "public key as secret": (bearer(issuer.signed_with_the_public_key()), *invalid),
            "signed by another": (bearer(Issuer().token()), *invalid),
            "of another issuer": (bearer(issuer.token(iss="https://other.test")), *invalid),
            "for another audience": (bearer(issuer.token(aud="other")), *invalid),
            "expired": (
                bearer(issuer.token(exp=1_000_000_000)),
                UNAUTHENTICATED,
                "the bearer token has expired",
            ),
            "of the future": (bearer(issuer.token(nbf=4_000_000_000, exp=4_000_000_000 + HOUR_S)), *invalid),
            "revoked key": (bearer(Issuer("old").token()), *invalid),
        },
    )


@pytest.fixture(scope="module")
def certificates(mutual: Secured, authority: Authority) -> Kind:
    def shown(*names: str, signer: Authority = authority, not_after: timedelta = HOUR) -> Open:
        pair = signer.issue(*names, not_before=-2 * HOUR, not_after=not_after)
        credentials = grpc.ssl_channel_credentials(authority.pem, pair.key, pair.certificate)
        return lambda: (grpc.secure_channel(mutual.server.grpc, credentials), ())

    def nothing() -> tuple[grpc.Channel, Metadata]:
        return grpc.secure_channel(mutual.server.grpc, grpc.ssl_channel_credentials(authority.pem)), ()

    rejected = (UNAUTHENTICATED, "the client certificate has no SPIFFE ID that is accepted")
    alice = "spiffe://inferd.test/alice"
    return Kind(
        valid=lambda name: shown(f"spiffe://inferd.test/{name}"),
        bad={
            "none": (nothing, UNAVAILABLE, None),
            "signed by another": (shown(alice, signer=Authority()), UNAVAILABLE, None),
            "expired": (shown(alice, not_after=-HOUR), UNAVAILABLE, None),
            "no id": (shown("alice.test"), *rejected),
            "of another domain": (shown("spiffe://other.test/alice"), *rejected),
            "two ids": (shown(alice, "spiffe://inferd.test/operator"), *rejected),
        },
    )


@pytest.fixture(scope="module", params=["tokens", "web_tokens", "certificates"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.getfixturevalue(request.param)


@contextmanager
def _calling(open_channel: Open) -> Iterator[Callable[[Method, str], tuple[grpc.StatusCode, str]]]:
    channel, metadata = open_channel()
    with channel:
        yield lambda method, model: method.call(channel, model, metadata)


def test_every_reflected_method_has_a_kind(secured: Secured) -> None:
    """New services must be listed with the kinds of their methods."""
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with secured.channel() as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        (response,) = stub.ServerReflectionInfo(
            iter([request]), metadata=secured.bearer("inferd_operator"), timeout=PATIENCE_S
        )
    names = {service.name for service in response.list_services_response.service}
    assert {"inferd.v1.InferenceService", "grpc.health.v1.Health"} < names
    pool = descriptor_pool.Default()
    services = [pool.FindServiceByName(name) for name in names if name not in REFLECTION_NAMES]
    methods = {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}
    assert methods <= KNOWN_METHODS


def test_rejects_invalid_credentials(kind: Kind) -> None:
    """For every method and model, whether or not it exists."""
    for name, (open_channel, code, text) in kind.bad.items():
        with _calling(open_channel) as call:
            for method in ALL:
                for model in ("digits", "secret-model", "none"):
                    found = call(method, model)
                    assert found == (code, found[1] if text is None else text), f"{name}: {method.name} of {model}"


def test_accepts_what_the_policy_allows(kind: Kind) -> None:
    """And denies the rest: callers differ in models and kinds of methods."""
    with _calling(kind.valid("operator")) as call:
        assert {(method.name, call(method, model)) for method in ALL for model in ("digits", "secret-model")} == {
            (method.name, (OK, "")) for method in ALL
        }
    with _calling(kind.valid("alice")) as call:
        for method in ALL:
            assert call(method, "digits")[0] is (FORBIDDEN if method.kind == "admin" else OK), method.name
    with _calling(kind.valid("bob")) as call:
        for method in ALL:
            assert call(method, "digits")[0] is (OK if method.kind == "metadata" else FORBIDDEN), method.name
    with _calling(kind.valid("somebody")) as call:
        assert {call(method, "digits")[0] for method in ALL} == {FORBIDDEN}


def test_hides_models_that_the_caller_may_not_see(kind: Kind) -> None:
    """The same status as for a model that does not exist."""
    with _calling(kind.valid("alice")) as call:
        for method in ABOUT_A_MODEL:
            code, text = call(method, "no-such-model")
            assert code is NOT_FOUND
            assert call(method, "secret-model") == (NOT_FOUND, text.replace("no-such-model", "secret-model"))


def test_admin_of_one_model(kind: Kind) -> None:
    """Others can be neither loaded nor unloaded, whether or not they exist, and are not in the index."""
    with _calling(kind.valid("keeper")) as call:
        for method in CONTROL:
            assert call(method, "digits") == (OK, ""), method.name
            for model in ("secret-model", "no-such-model"):
                text = f'model "{model}": no rule allows this caller to call its admin methods'
                assert call(method, model) == (FORBIDDEN, text), method.name
    channel, metadata = kind.valid("keeper")()
    with channel:
        index = own_grpc.InferenceServiceStub(channel).IndexModels(
            own.IndexModelsRequest(), metadata=metadata, timeout=PATIENCE_S
        )
        assert [each.name for each in index.models] == ["digits"]

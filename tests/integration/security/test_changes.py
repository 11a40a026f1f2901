"""Visibility of models, quotas, and reloads while streams are open; over real sockets."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from inferd._generated.inferd.v1 import inference_pb2 as own
from inferd._generated.inferd.v1 import inference_pb2_grpc as own_grpc
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd._generated.inference import grpc_service_pb2_grpc as oip_grpc
from tests.integration.security.calls import ABOUT_A_MODEL, ALL, Metadata, OpenStream, Status, own_request, status_of
from tests.integration.security.conftest import Secured, token_entry
from tests.issuer import Issuer, jwks
from tests.load import metric
from tests.patience import eventually

OK, UNAUTHENTICATED = grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED
NOT_FOUND, FORBIDDEN = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED

#: Lifetimes of expiring credentials, tried in turn until one is long enough to be used.
BRIEF_S = (2, 8, 32)


@pytest.fixture
def channel(secured: Secured) -> Iterator[grpc.Channel]:
    with secured.channel() as channel:
        yield channel


def _await(probe: Callable[[], Status], code: grpc.StatusCode) -> Status:
    """Call ``probe`` until it returns ``code``."""
    statuses: list[Status] = []

    def is_so() -> bool:
        statuses.append(probe())
        return statuses[-1][0] is code

    eventually(is_so, f"a status of {code}")
    return statuses[-1]


def _wait_until_known(channel: grpc.Channel, metadata: Metadata, expires: float) -> None:
    """Wait until a credential is accepted, or has expired."""
    infer = ABOUT_A_MODEL[0].call
    eventually(lambda: infer(channel, "digits", metadata)[0] is OK or time.time() >= expires, "it is known, or expired")


def test_lists_only_visible_models(secured, channel) -> None:
    """In models, statistics, and errors that list names."""
    alice, operator = secured.bearer("inferd_alice"), secured.bearer("inferd_operator")
    for metadata, names in ((alice, ["digits"]), (operator, ["digits", "secret-model"])):
        listed = own_grpc.InferenceServiceStub(channel).ListModels(own.ListModelsRequest(), metadata=metadata)
        assert [model.name for model in listed.models] == names
        statistics = oip_grpc.GRPCInferenceServiceStub(channel).ModelStatistics(
            oip.ModelStatisticsRequest(), metadata=metadata
        )
        assert [model.name for model in statistics.model_stats] == names
    infer = ABOUT_A_MODEL[0].call
    assert infer(channel, "", operator)[1] == "model: expected one of digits, secret-model, got no name"
    assert infer(channel, "", alice)[0] is OK
    ready = oip_grpc.GRPCInferenceServiceStub(channel).ModelReady
    assert not ready(oip.ModelReadyRequest(name="secret-model"), metadata=alice).ready


def test_denied_request_does_not_end_its_stream(secured, channel) -> None:
    """Errors of single requests are in-band."""
    stream = OpenStream(channel, secured.bearer("inferd_alice"))
    assert stream.send("secret-model") == (NOT_FOUND, 'there is no model "secret-model"')
    assert stream.send("digits")[0] is OK
    stream.close()


def test_quota_rejects_with_a_retry_hint(secured, channel) -> None:
    """Unary calls and streams share it, and its rejections are counted apart from the queue's."""
    limited = secured.bearer("inferd_limited")
    infer = ABOUT_A_MODEL[0].call
    assert infer(channel, "digits", limited)[0] is OK
    with pytest.raises(grpc.RpcError) as caught:
        own_grpc.InferenceServiceStub(channel).Infer(own_request("digits"), metadata=limited)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    hint_ms = int(dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"])
    assert 0 < hint_ms <= 100_000, "one request in 100 s, less the time since the first"
    assert metric(secured.server, "inferd_quota_rejected_total", reason="requests_per_s") == 1
    assert metric(secured.server, "inferd_rejected_total") == 0
    stream = OpenStream(channel, limited)
    assert stream.send("digits")[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    stream.close()


@pytest.mark.parametrize(
    ("method", "request_", "code"),
    [
        ("GetModel", own.GetModelRequest(model="digits"), OK),
        ("GetModel", own.GetModelRequest(model="none"), NOT_FOUND),
        ("ListModels", own.ListModelsRequest(), OK),
        ("Infer", own.InferRequest(model="digits"), grpc.StatusCode.INVALID_ARGUMENT),
        ("Infer", own.InferRequest(model="none"), NOT_FOUND),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_quota_charges_queries_and_invalid_requests(secured, channel, method, request_, code) -> None:
    """Of hundreds sent at once, only as many are answered as the quota allows."""
    call = getattr(own_grpc.InferenceServiceStub(channel), method)
    started_at = time.monotonic()
    calls = [call.future(request_, metadata=secured.bearer("inferd_busy")) for _ in range(500)]
    codes = [each.code() for each in calls]
    allowed = 10 + 10 * (time.monotonic() - started_at) + 1
    assert set(codes) <= {code, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert codes.count(code) <= allowed
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) >= 500 - allowed


def test_health_needs_no_credential(channel) -> None:
    """Probes have none; reflection needs one."""
    live = oip_grpc.GRPCInferenceServiceStub(channel).ServerLive(oip.ServerLiveRequest())
    assert live.live
    reflected = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    assert status_of(lambda: list(reflected(iter([b""]))))[0] is UNAUTHENTICATED


def test_revoked_token_is_rejected_and_ends_its_streams(secured, channel) -> None:
    """Without a restart; other streams stay open."""
    secured.change("tokens.yaml", lambda text: text + token_entry("alice", "inferd_late"))
    late, infer = secured.bearer("inferd_late"), ABOUT_A_MODEL[0].call
    _await(lambda: infer(channel, "digits", late), OK)
    stream, other = OpenStream(channel, late), OpenStream(channel, secured.bearer("inferd_alice"))
    assert [stream.send("digits")[0], other.send("digits")[0]] == [OK, OK]
    secured.change("tokens.yaml", lambda text: text.replace(token_entry("alice", "inferd_late"), ""))
    assert stream.wait_for_end() == (UNAUTHENTICATED, "the credential of this stream is no longer valid")
    for method in ALL:
        assert method.call(channel, "digits", late) == (UNAUTHENTICATED, "the bearer token is not valid")
    assert other.send("digits")[0] is OK
    other.close()


def test_expired_token_ends_its_stream(secured, channel) -> None:
    """Without any change of files."""
    for valid_s in BRIEF_S:
        expires = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1 + valid_s)
        token = f"inferd_brief-{valid_s}"
        entry = token_entry("alice", token, expires)
        secured.change("tokens.yaml", lambda text, entry=entry: text + entry)
        _wait_until_known(channel, secured.bearer(token), expires.timestamp())
        stream = OpenStream(channel, secured.bearer(token))
        if stream.send("digits")[0] is OK:
            break
    assert stream.wait_for_end() == (UNAUTHENTICATED, "the credential of this stream has expired")
    assert expires.timestamp() <= time.time()


def test_new_policy_applies_to_open_streams(secured, channel) -> None:
    """Requests are denied one by one, and a stream without any permission ends."""
    stream = OpenStream(channel, secured.bearer("inferd_operator"))
    assert stream.send("secret-model")[0] is OK
    before = (secured.folder / "policy.yaml").read_text()
    try:
        line = "methods: [infer, metadata, admin]"
        secured.change("policy.yaml", lambda text: text.replace(line, f"{line}, models: [digits]"))
        _await(lambda: stream.send("secret-model"), NOT_FOUND)
        secured.change("policy.yaml", lambda text: text.replace(line, "methods: [admin]"))
        assert stream.wait_for_end() == (FORBIDDEN, "no rule allows this caller to call infer methods")
    finally:
        secured.change("policy.yaml", lambda _: before)
        operator = secured.bearer("inferd_operator")
        _await(lambda: ABOUT_A_MODEL[0].call(channel, "secret-model", operator), OK)


def test_keeps_the_previous_content_of_a_bad_file(secured, channel) -> None:
    """The rejection is logged without quoting the file."""
    before = (secured.folder / "tokens.yaml").read_text()
    try:
        secured.change("tokens.yaml", lambda _: "- inferd_PLANTED")
        line = secured.server.wait_event("file reload rejected; keeping the previous content")
        assert (line["level"], line["file_use"]) == ("error", "tokens")
        assert "PLANTED" not in secured.server.text
        assert ABOUT_A_MODEL[0].call(channel, "digits", secured.bearer("inferd_alice"))[0] is OK
    finally:
        secured.change("tokens.yaml", lambda _: before)


def test_removed_key_is_rejected_and_ends_its_streams(secured, channel, issuer) -> None:
    """And a new one is accepted, both without a restart."""
    new, infer = Issuer("new"), ABOUT_A_MODEL[0].call
    alice, fresh = secured.bearer(issuer.token()), secured.bearer(new.token())
    stream = OpenStream(channel, alice)
    assert stream.send("digits")[0] is OK
    assert infer(channel, "digits", fresh)[0] is UNAUTHENTICATED
    secured.change("keys.json", lambda _: jwks(new.jwk()))
    assert stream.wait_for_end() == (UNAUTHENTICATED, "the credential of this stream is no longer valid")
    assert infer(channel, "digits", alice) == (UNAUTHENTICATED, "the bearer token is not valid")
    assert infer(channel, "digits", fresh)[0] is OK
    secured.change("keys.json", lambda _: jwks(issuer.jwk()))
    _await(lambda: infer(channel, "digits", alice), OK)


def test_expired_web_token_ends_its_stream(secured, channel, issuer) -> None:
    """Although it was cached when the stream was opened."""
    for valid_s in BRIEF_S:
        expires = int(time.time()) + valid_s
        stream = OpenStream(channel, secured.bearer(issuer.token(exp=expires)))
        if stream.send("digits")[0] is OK:
            break
    assert stream.wait_for_end() == (UNAUTHENTICATED, "the credential of this stream has expired")
    assert expires <= time.time()


def test_removed_rule_ends_the_streams_of_a_certificate(mutual, authority) -> None:
    """SPIFFE IDs are revoked by removing their rules."""
    pair = authority.issue("spiffe://inferd.test/alice")
    credentials = grpc.ssl_channel_credentials(authority.pem, pair.key, pair.certificate)
    before = (mutual.folder / "policy.yaml").read_text()
    with grpc.secure_channel(mutual.server.grpc, credentials) as channel:
        stream = OpenStream(channel, ())
        assert stream.send("digits")[0] is OK
        try:
            mutual.change("policy.yaml", lambda text: text.replace("spiffe://inferd.test/alice", "spiffe://none/a"))
            assert stream.wait_for_end() == (FORBIDDEN, "no rule allows this caller to call infer methods")
            assert ABOUT_A_MODEL[0].call(channel, "digits", ())[0] is FORBIDDEN
        finally:
            mutual.change("policy.yaml", lambda _: before)
            _await(lambda: ABOUT_A_MODEL[0].call(channel, "digits", ()), OK)

"""What callers see of models, what quotas let pass, and what changes while streams are open; over real sockets."""

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
from tests.load import eventually, metric

OK, UNAUTHENTICATED = grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED
NOT_FOUND, FORBIDDEN = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED

#: How long credentials hold that are to expire: as long as this machine needs to use them.
BRIEF_S = (2, 8, 32)


@pytest.fixture
def channel(secured: Secured) -> Iterator[grpc.Channel]:
    with secured.channel() as channel:
        yield channel


def _soon(probe: Callable[[], Status], code: grpc.StatusCode) -> Status:
    """Ask until the answer has ``code``."""
    answers: list[Status] = []

    def has_come() -> bool:
        answers.append(probe())
        return answers[-1][0] is code

    eventually(has_come, f"an answer with {code}")
    return answers[-1]


def _wait_until_known(channel: grpc.Channel, metadata: Metadata, expires: float) -> None:
    """Wait until a credential is taken, or has expired."""
    infer = ABOUT_A_MODEL[0].call
    eventually(lambda: infer(channel, "digits", metadata)[0] is OK or time.time() >= expires, "it is known, or expired")


def test_lists_show_what_may_be_seen(secured, channel) -> None:
    """Of models, of statistics, and of names in errors."""
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


def test_a_stream_stays_open_over_what_is_forbidden(secured, channel) -> None:
    """Errors of single requests are for those alone."""
    stream = OpenStream(channel, secured.bearer("inferd_alice"))
    assert stream.ask("secret-model") == (NOT_FOUND, 'there is no model "secret-model"')
    assert stream.ask("digits")[0] is OK
    stream.close()


def test_a_quota_refuses_with_a_hint(secured, channel) -> None:
    """Unary and stream, from the same bucket, and counted apart from the queue's own refusals."""
    limited = secured.bearer("inferd_limited")
    infer = ABOUT_A_MODEL[0].call
    assert infer(channel, "digits", limited)[0] is OK
    with pytest.raises(grpc.RpcError) as caught:
        own_grpc.InferenceServiceStub(channel).Infer(own_request("digits"), metadata=limited)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    hint_ms = int(dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"])
    assert 0 < hint_ms <= 100_000, "one request in 100 s, less what has passed of them"
    assert metric(secured.server, "inferd_quota_rejected_total", reason="requests_per_s") == 1
    assert metric(secured.server, "inferd_rejected_total") == 0
    stream = OpenStream(channel, limited)
    assert stream.ask("digits")[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
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
def test_queries_and_wrong_requests_count_to_the_quota(secured, channel, method, request_, code) -> None:
    """Of hundreds in a moment no more pass than the quota allows."""
    call = getattr(own_grpc.InferenceServiceStub(channel), method)
    started_at = time.monotonic()
    calls = [call.future(request_, metadata=secured.bearer("inferd_busy")) for _ in range(500)]
    codes = [each.code() for each in calls]
    allowed = 10 + 10 * (time.monotonic() - started_at) + 1
    assert set(codes) <= {code, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert codes.count(code) <= allowed
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) >= 500 - allowed


def test_health_is_open(channel) -> None:
    """Probes have no credentials."""
    live = oip_grpc.GRPCInferenceServiceStub(channel).ServerLive(oip.ServerLiveRequest())
    assert live.live
    reflected = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    assert status_of(lambda: list(reflected(iter([b""]))))[0] is UNAUTHENTICATED


def test_a_revoked_token_ends_calls_and_streams(secured, channel) -> None:
    """Without a restart; others go on."""
    secured.change("tokens.yaml", lambda text: text + token_entry("alice", "inferd_late"))
    late, infer = secured.bearer("inferd_late"), ABOUT_A_MODEL[0].call
    _soon(lambda: infer(channel, "digits", late), OK)
    stream, other = OpenStream(channel, late), OpenStream(channel, secured.bearer("inferd_alice"))
    assert [stream.ask("digits")[0], other.ask("digits")[0]] == [OK, OK]
    secured.change("tokens.yaml", lambda text: text.replace(token_entry("alice", "inferd_late"), ""))
    assert stream.wait_for_end() == (UNAUTHENTICATED, "the credential of this stream is no longer valid")
    for method in ALL:
        assert method.call(channel, "digits", late) == (UNAUTHENTICATED, "the bearer token is not valid")
    assert other.ask("digits")[0] is OK
    other.close()


def test_a_token_that_expires_ends_its_stream(secured, channel) -> None:
    """At its time, with no change of any file."""
    for valid_s in BRIEF_S:
        expires = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1 + valid_s)
        token = f"inferd_brief-{valid_s}"
        entry = token_entry("alice", token, expires)
        secured.change("tokens.yaml", lambda text, entry=entry: text + entry)
        _wait_until_known(channel, secured.bearer(token), expires.timestamp())
        stream = OpenStream(channel, secured.bearer(token))
        if stream.ask("digits")[0] is OK:
            break
    assert stream.wait_for_end() == (UNAUTHENTICATED, "the credential of this stream has expired")
    assert expires.timestamp() <= time.time()


def test_new_rules_hold_for_open_streams(secured, channel) -> None:
    """What is forbidden now is refused, and a stream that may do nothing any more ends."""
    stream = OpenStream(channel, secured.bearer("inferd_operator"))
    assert stream.ask("secret-model")[0] is OK
    before = (secured.folder / "policy.yaml").read_text()
    try:
        line = "methods: [infer, metadata, admin]"
        secured.change("policy.yaml", lambda text: text.replace(line, f"{line}, models: [digits]"))
        _soon(lambda: stream.ask("secret-model"), NOT_FOUND)
        secured.change("policy.yaml", lambda text: text.replace(line, "methods: [admin]"))
        assert stream.wait_for_end() == (FORBIDDEN, "no rule allows this caller to call infer methods")
    finally:
        secured.change("policy.yaml", lambda _: before)
        operator = secured.bearer("inferd_operator")
        _soon(lambda: ABOUT_A_MODEL[0].call(channel, "secret-model", operator), OK)


def test_a_bad_file_changes_nothing(secured, channel) -> None:
    """What was read before stays in force, and the log says what is wrong."""
    before = (secured.folder / "tokens.yaml").read_text()
    try:
        secured.change("tokens.yaml", lambda _: "- inferd_PLANTED")
        line = secured.server.wait_event("file reload rejected; keeping the previous content")
        assert (line["level"], line["file_use"]) == ("error", "tokens")
        assert "PLANTED" not in secured.server.text
        assert ABOUT_A_MODEL[0].call(channel, "digits", secured.bearer("inferd_alice"))[0] is OK
    finally:
        secured.change("tokens.yaml", lambda _: before)


def test_a_withdrawn_key_ends_calls_and_streams(secured, channel, issuer) -> None:
    """And a new one is taken, both without a restart."""
    new, infer = Issuer("new"), ABOUT_A_MODEL[0].call
    alice, fresh = secured.bearer(issuer.token()), secured.bearer(new.token())
    stream = OpenStream(channel, alice)
    assert stream.ask("digits")[0] is OK
    assert infer(channel, "digits", fresh)[0] is UNAUTHENTICATED
    secured.change("keys.json", lambda _: jwks(new.jwk()))
    assert stream.wait_for_end() == (UNAUTHENTICATED, "the credential of this stream is no longer valid")
    assert infer(channel, "digits", alice) == (UNAUTHENTICATED, "the bearer token is not valid")
    assert infer(channel, "digits", fresh)[0] is OK
    secured.change("keys.json", lambda _: jwks(issuer.jwk()))
    _soon(lambda: infer(channel, "digits", alice), OK)


def test_a_web_token_that_expires_ends_its_stream(secured, channel, issuer) -> None:
    """Also one that was let in before."""
    for valid_s in BRIEF_S:
        expires = int(time.time()) + valid_s
        stream = OpenStream(channel, secured.bearer(issuer.token(exp=expires)))
        if stream.ask("digits")[0] is OK:
            break
    assert stream.wait_for_end() == (UNAUTHENTICATED, "the credential of this stream has expired")
    assert expires <= time.time()


def test_a_certificate_without_a_rule_ends_its_stream(mutual, authority) -> None:
    """Revoking an identity is taking it out of the rules."""
    pair = authority.issue("spiffe://inferd.test/alice")
    credentials = grpc.ssl_channel_credentials(authority.pem, pair.key, pair.certificate)
    before = (mutual.folder / "policy.yaml").read_text()
    with grpc.secure_channel(mutual.server.grpc, credentials) as channel:
        stream = OpenStream(channel, ())
        assert stream.ask("digits")[0] is OK
        try:
            mutual.change("policy.yaml", lambda text: text.replace("spiffe://inferd.test/alice", "spiffe://none/a"))
            assert stream.wait_for_end() == (FORBIDDEN, "no rule allows this caller to call infer methods")
            assert ABOUT_A_MODEL[0].call(channel, "digits", ())[0] is FORBIDDEN
        finally:
            mutual.change("policy.yaml", lambda _: before)
            _soon(lambda: ABOUT_A_MODEL[0].call(channel, "digits", ()), OK)

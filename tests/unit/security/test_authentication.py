"""Authentication of calls: principals, rejections, the credential cache and the revocation of streams."""

import grpc
import pytest

from inferd.config.security import SecuritySettings
from inferd.rpc import Rejection
from inferd.security.authentication.bearer_tokens import TokenTable
from inferd.security.authentication.credentials import SnapshotStore, TwoGenerationCache
from inferd.security.authentication.interceptor import AuthenticationInterceptor
from inferd.security.authentication.stream_revoker import StreamRevoker
from inferd.security.authorization.policy import Permissions, Policy
from inferd.security.authorization.quota import QuotaStore
from tests.unit.call_context import known
from tests.unit.security.fakes import CHECK, INFER, LIST, LIST_HEALTH, STREAM, FakeCall, WallClock, bearer, table

REFLECT = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


class Bench:
    """An interceptor with a clock that the test sets."""

    def __init__(self, **settings: object) -> None:
        self.clock = WallClock()
        self.snapshots = SnapshotStore()
        quotas = QuotaStore(clock=lambda: 0.0)
        self.revoker = StreamRevoker(self.snapshots, quotas, wall_clock=self.clock)
        self.interceptor = AuthenticationInterceptor(
            SecuritySettings(tokens_file="tokens.yaml", **settings),
            self.snapshots,
            quotas,
            self.revoker,
            wall_clock=self.clock,
        )

    def start(self, *metadata: tuple[str, str | bytes], method: str = INFER) -> tuple[FakeCall, Rejection | None]:
        call = FakeCall(method, *metadata)
        return call, self.interceptor.started(call)


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.snapshots.update(tokens=table(alice="a", brief=("b", bench.clock.now + 60)))
    return bench


@pytest.mark.parametrize("header", ["Bearer a", "bearer a", "BEARER   a "])
def test_accepts_valid_token(bench: Bench, header: str) -> None:
    """Verified the first time and cached the second; without a policy there are no permissions to check."""
    for _ in range(2):
        call, rejection = bench.start(("x", "y"), ("authorization", header))
        assert rejection is None
        assert known(call.context) == {"principal": "token:alice"}


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ([], "expected an authorization header with a bearer token"),
        ([bearer("PLANTED")], "the bearer token is not valid"),
        ([("authorization", "Basic PLANTED")], 'expected an authorization header of the form "Bearer TOKEN"'),
        ([("authorization", "Bearer ")], 'expected an authorization header of the form "Bearer TOKEN"'),
        ([("authorization", "Bearer " + "P" * 20_000)], 'expected an authorization header of the form "Bearer TOKEN"'),
        ([bearer("a"), bearer("a")], "expected one authorization header, got several"),
    ],
)
def test_rejects_with_a_fixed_text(bench: Bench, metadata: list, text: str) -> None:
    """The same when the rejection is cached."""
    for _ in range(2):
        call, rejection = bench.start(*metadata)
        assert (rejection.code, rejection.details) == (grpc.StatusCode.UNAUTHENTICATED, text)
        assert dict(rejection.trailing_metadata) == {"www-authenticate": "Bearer"}
        assert call.context.principal is None


def test_cached_token_expires(bench: Bench) -> None:
    """The cache does not extend a credential."""
    assert bench.start(bearer("b"))[1] is None
    bench.clock.now += 60
    assert bench.start(bearer("b"))[1].details == "the bearer token has expired"


def test_reload_invalidates_the_cache(bench: Bench) -> None:
    """A revoked token is rejected by the next call, and one that was rejected may be valid now."""
    assert bench.start(bearer("a"))[1] is None
    assert bench.start(bearer("new"))[1] is not None
    bench.snapshots.update(tokens=table(alice="new"))
    assert bench.start(bearer("a"))[1] is not None
    assert bench.start(bearer("new"))[1] is None


def test_health_needs_no_credential_and_reflection_does(bench: Bench) -> None:
    """By default; each can be set the other way."""
    for method in (CHECK, LIST_HEALTH):
        call, rejection = bench.start(method=method)
        assert (rejection, call.context.principal) == (None, "anonymous")
        assert call.expects_small_message, "an anonymous caller must not fill the memory with half a message"
    assert not bench.start(bearer("a"))[0].expects_small_message
    assert bench.start(method=REFLECT)[1].code is grpc.StatusCode.UNAUTHENTICATED
    closed = Bench(open_health=False, open_reflection=True)
    for method in (CHECK, LIST_HEALTH):
        assert closed.start(method=method)[1].code is grpc.StatusCode.UNAUTHENTICATED
    assert closed.start(method=REFLECT)[1] is None


def test_policy_denies_kinds_of_methods(bench: Bench) -> None:
    """Before the message is read; health and reflection need no rule."""
    policy = Policy.model_validate({"rules": [{"principals": ["token:alice"], "methods": ["infer"]}]})
    bench.snapshots.update(policy=policy)
    call, rejection = bench.start(bearer("a"))
    assert rejection is None
    assert isinstance(call.context.permissions, Permissions)
    assert bench.start(bearer("a"), method=REFLECT)[1] is None
    for method, kind in ((LIST, "metadata"), ("/grpc.channelz.v1.Channelz/GetServers", "admin")):
        call, rejection = bench.start(bearer("a"), method=method)
        assert (rejection.code, rejection.details) == (
            grpc.StatusCode.PERMISSION_DENIED,
            f"no rule allows this caller to call {kind} methods",
        )
        assert call.context.principal == "token:alice"
    assert bench.start(bearer("b"))[1].code is grpc.StatusCode.PERMISSION_DENIED


def _stream(bench: Bench, token: str) -> tuple[FakeCall, list]:
    call, rejection = bench.start(bearer(token), method=STREAM)
    assert rejection is None
    ended: list = []
    call.annotations["end_stream"] = ended.append
    return call, ended


def test_stream_ends_when_its_token_is_revoked(bench: Bench) -> None:
    """Not before, and by its own handler, which cancels the open requests."""
    _, ended = _stream(bench, "a")
    bench.revoker.check()
    assert ended == []
    bench.snapshots.update(tokens=table(bob="b"))
    bench.revoker.check()
    assert [(error.reason, error.message) for error in ended] == [
        ("NOT_AUTHENTICATED", "the credential of this stream is no longer valid")
    ]


def test_stream_follows_the_present_expiry_of_its_token(bench: Bench) -> None:
    """Whether it was extended or shortened since the stream was opened."""
    _, ended = _stream(bench, "b")
    bench.snapshots.update(tokens=table(brief=("b", bench.clock.now + 120)))
    bench.clock.now += 119
    bench.revoker.check()
    assert ended == []
    bench.snapshots.update(tokens=table(brief=("b", bench.clock.now)))
    bench.revoker.check()
    assert [error.message for error in ended] == ["the credential of this stream has expired"]


def test_stream_ends_when_its_token_expires(bench: Bench) -> None:
    """Without any change of files."""
    _, ended = _stream(bench, "b")
    bench.clock.now += 59
    bench.revoker.check()
    assert ended == []
    bench.clock.now += 1
    bench.revoker.check()
    assert [error.message for error in ended] == ["the credential of this stream has expired"]


def test_new_policy_applies_to_open_streams(bench: Bench) -> None:
    """A stream gets its new permissions, and ends if it has none for its method."""
    call, ended = _stream(bench, "a")
    rule = {"principals": ["token:alice"], "models": ["digits"]}
    bench.snapshots.update(policy=Policy.model_validate({"rules": [rule]}))
    bench.revoker.check()
    assert call.context.permissions.sees("digits")
    assert not call.context.permissions.sees("other")
    assert ended == []
    bench.snapshots.update(policy=Policy.model_validate({"rules": [{**rule, "methods": ["metadata"]}]}))
    bench.revoker.check()
    assert [error.reason for error in ended] == ["NOT_ALLOWED"]


def test_aborts_streams_of_other_handlers(bench: Bench) -> None:
    """Those of methods that are not listed, such as a third party's."""
    call, _ = bench.start(bearer("a"), method="/other.Service/Method")
    bench.snapshots.update(tokens=table())
    bench.revoker.check()
    assert call.ended[0] is grpc.StatusCode.UNAUTHENTICATED


def test_ended_stream_is_not_checked(bench: Bench) -> None:
    """No reference to it is kept."""
    call, ended = _stream(bench, "a")
    call.over()
    assert "end_stream" not in call.annotations
    bench.snapshots.update(tokens=table())
    bench.revoker.check()
    assert (ended, call.ended) == ([], None)


def test_cache_keeps_used_entries_and_is_bounded() -> None:
    """An entry in use is never evicted, and at most twice the limit is kept."""
    cache: TwoGenerationCache[int] = TwoGenerationCache(4)
    cache[b"used"] = 1
    for number in range(100):
        cache[b"%d" % number] = number
        assert cache[b"used"] == 1
    assert sum(cache[b"%d" % number] is not None for number in range(100)) <= 8


def test_failure_to_end_a_stream_does_not_affect_others(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and retried at the next check."""
    broken, _ = _stream(bench, "a")
    _, ended = _stream(bench, "a")

    def fail(_error: object) -> None:
        raise RuntimeError("a bug")

    broken.annotations["end_stream"] = fail
    bench.snapshots.update(tokens=table())
    bench.revoker.check()
    assert len(ended) == 1
    assert "failed to end a stream" in caplog.text


def test_stream_opened_during_a_reload_gets_the_new_policy(bench: Bench) -> None:
    """Also if the other streams were checked already when it was added."""
    old = bench.snapshots.current
    bench.snapshots.update(policy=Policy.model_validate({"rules": [{"principals": ["token:bob"]}]}))
    bench.revoker.check()
    late = FakeCall(STREAM)
    bench.revoker.add(late, table(alice="a").verify("a", 0), old)
    bench.revoker.check()
    assert late.ended == (grpc.StatusCode.PERMISSION_DENIED, "no rule allows this caller to call infer methods")


def test_invalid_tokens_evict_no_valid_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An invalid token that is sent repeatedly is verified once."""
    verified: list[str] = []
    check = TokenTable.verify
    monkeypatch.setattr(
        TokenTable, "verify", lambda self, token, now: (verified.append(token), check(self, token, now))[1]
    )
    assert bench.start(bearer("a"))[1] is None
    for number in range(10_000):
        bench.start(bearer(f"wrong-{number}"))
        bench.start(bearer("again"))
    assert bench.start(bearer("a"))[1] is None
    assert (verified.count("a"), verified.count("again")) == (1, 1)

"""Who is let in, as what, and what everybody else hears."""

import grpc
import pytest

from inferd.config.security import SecuritySettings
from inferd.rpc import CallRefusal
from inferd.security.authentication.bearer_tokens import TokenTable
from inferd.security.authentication.credentials import SnapshotStore, TwoGenerationCache
from inferd.security.authentication.interceptor import AuthenticationInterceptor
from inferd.security.authentication.stream_revoker import StreamRevoker
from inferd.security.authorization.policy import Permissions, Policy
from inferd.security.authorization.quota import QuotaStore
from tests.unit.call_facts import told
from tests.unit.security.fakes import CHECK, INFER, LIST, LIST_HEALTH, STREAM, FakeCall, WallClock, bearer, table

REFLECT = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


class Bench:
    """An interceptor with a clock that the test moves."""

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

    def start(self, *metadata: tuple[str, str | bytes], method: str = INFER) -> tuple[FakeCall, CallRefusal | None]:
        call = FakeCall(method, *metadata)
        return call, self.interceptor.started(call)


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.snapshots.update(tokens=table(alice="a", brief=("b", bench.clock.now + 60)))
    return bench


@pytest.mark.parametrize("header", ["Bearer a", "bearer a", "BEARER   a "])
def test_who_has_a_token_is_let_in_by_name(bench: Bench, header: str) -> None:
    """The first time and when it is known; without rules there is no permissions, which allows everything."""
    for _ in range(2):
        call, refusal = bench.start(("x", "y"), ("authorization", header))
        assert refusal is None
        assert told(call.facts) == {"principal": "token:alice"}


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
def test_others_are_told_what_was_missing_and_nothing_else(bench: Bench, metadata: list, text: str) -> None:
    """The same the second time."""
    for _ in range(2):
        call, refusal = bench.start(*metadata)
        assert (refusal.code, refusal.details) == (grpc.StatusCode.UNAUTHENTICATED, text)
        assert dict(refusal.trailing_metadata) == {"www-authenticate": "Bearer"}
        assert call.facts.principal is None


def test_a_token_expires_while_it_is_known(bench: Bench) -> None:
    """Being remembered makes no credential last."""
    assert bench.start(bearer("b"))[1] is None
    bench.clock.now += 60
    assert bench.start(bearer("b"))[1].details == "the bearer token has expired"


def test_what_is_known_is_forgotten_with_new_files(bench: Bench) -> None:
    """The next call after a revocation is refused, and one that was refused may hold now."""
    assert bench.start(bearer("a"))[1] is None
    assert bench.start(bearer("new"))[1] is not None
    bench.snapshots.update(tokens=table(alice="new"))
    assert bench.start(bearer("a"))[1] is not None
    assert bench.start(bearer("new"))[1] is None


def test_health_is_open_and_reflection_is_not(bench: Bench) -> None:
    """By default; who is anonymous stays so."""
    for method in (CHECK, LIST_HEALTH):
        call, refusal = bench.start(method=method)
        assert (refusal, call.facts.principal) == (None, "anonymous")
        assert call.must_hurry, "whoever it is may not fill the memory with half a message"
    assert not bench.start(bearer("a"))[0].must_hurry
    assert bench.start(method=REFLECT)[1].code is grpc.StatusCode.UNAUTHENTICATED
    closed = Bench(open_health=False, open_reflection=True)
    for method in (CHECK, LIST_HEALTH):
        assert closed.start(method=method)[1].code is grpc.StatusCode.UNAUTHENTICATED
    assert closed.start(method=REFLECT)[1] is None


def test_rules_forbid_kinds_of_methods_at_once(bench: Bench) -> None:
    """Before anything of the call is read; health and reflection need no rule."""
    policy = Policy.model_validate({"rules": [{"principals": ["token:alice"], "methods": ["infer"]}]})
    bench.snapshots.update(policy=policy)
    call, refusal = bench.start(bearer("a"))
    assert refusal is None
    assert isinstance(call.facts.permissions, Permissions)
    assert bench.start(bearer("a"), method=REFLECT)[1] is None
    for method, kind in ((LIST, "metadata"), ("/grpc.channelz.v1.Channelz/GetServers", "admin")):
        call, refusal = bench.start(bearer("a"), method=method)
        assert (refusal.code, refusal.details) == (
            grpc.StatusCode.PERMISSION_DENIED,
            f"no rule allows this caller to call {kind} methods",
        )
        assert call.facts.principal == "token:alice"
    assert bench.start(bearer("b"))[1].code is grpc.StatusCode.PERMISSION_DENIED


def _stream(bench: Bench, token: str) -> tuple[FakeCall, list]:
    call, refusal = bench.start(bearer(token), method=STREAM)
    assert refusal is None
    ended: list = []
    call.annotations["end_stream"] = ended.append
    return call, ended


def test_a_stream_ends_when_its_token_is_revoked(bench: Bench) -> None:
    """And not before; the stream itself does it, so that it gives up on what is open."""
    _, ended = _stream(bench, "a")
    bench.revoker.check()
    assert ended == []
    bench.snapshots.update(tokens=table(bob="b"))
    bench.revoker.check()
    assert [(error.reason, error.message) for error in ended] == [
        ("NOT_AUTHENTICATED", "the credential of this stream is no longer valid")
    ]


def test_a_stream_lasts_as_long_as_its_token_does_by_now(bench: Bench) -> None:
    """Whether that was made to last longer or shorter since."""
    _, ended = _stream(bench, "b")
    bench.snapshots.update(tokens=table(brief=("b", bench.clock.now + 120)))
    bench.clock.now += 119
    bench.revoker.check()
    assert ended == []
    bench.snapshots.update(tokens=table(brief=("b", bench.clock.now)))
    bench.revoker.check()
    assert [error.message for error in ended] == ["the credential of this stream has expired"]


def test_a_stream_ends_when_its_token_expires(bench: Bench) -> None:
    """Nothing has to change for that but the time."""
    _, ended = _stream(bench, "b")
    bench.clock.now += 59
    bench.revoker.check()
    assert ended == []
    bench.clock.now += 1
    bench.revoker.check()
    assert [error.message for error in ended] == ["the credential of this stream has expired"]


def test_new_rules_hold_for_open_streams(bench: Bench) -> None:
    """Those that may go on get their new permissions, and the others end; no rules are no permissions."""
    call, ended = _stream(bench, "a")
    rule = {"principals": ["token:alice"], "models": ["digits"]}
    bench.snapshots.update(policy=Policy.model_validate({"rules": [rule]}))
    bench.revoker.check()
    assert call.facts.permissions.sees("digits")
    assert not call.facts.permissions.sees("other")
    assert ended == []
    bench.snapshots.update(policy=Policy.model_validate({"rules": [{**rule, "methods": ["metadata"]}]}))
    bench.revoker.check()
    assert [error.reason for error in ended] == ["NOT_ALLOWED"]


def test_streams_of_others_are_just_ended(bench: Bench) -> None:
    """Watching health, where that is not open, and whatever else may last."""
    call, _ = bench.start(bearer("a"), method="/other.Service/Method")
    bench.snapshots.update(tokens=table())
    bench.revoker.check()
    assert call.ended[0] is grpc.StatusCode.UNAUTHENTICATED


def test_what_has_ended_is_looked_after_no_more(bench: Bench) -> None:
    """Nothing of it is kept."""
    call, ended = _stream(bench, "a")
    call.over()
    assert "end_stream" not in call.annotations
    bench.snapshots.update(tokens=table())
    bench.revoker.check()
    assert (ended, call.ended) == ([], None)


def test_what_is_used_is_remembered_and_memory_is_bounded() -> None:
    """However many others come in between, at most twice the limit is kept."""
    known: TwoGenerationCache[int] = TwoGenerationCache(4)
    known[b"used"] = 1
    for number in range(100):
        known[b"%d" % number] = number
        assert known[b"used"] == 1
    assert sum(known[b"%d" % number] is not None for number in range(100)) <= 8


def test_a_stream_that_cannot_be_ended_keeps_no_other_open(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and tried again the next time."""
    broken, _ = _stream(bench, "a")
    _, ended = _stream(bench, "a")

    def fail(_error: object) -> None:
        raise RuntimeError("a fault of ours")

    broken.annotations["end_stream"] = fail
    bench.snapshots.update(tokens=table())
    bench.revoker.check()
    assert len(ended) == 1
    assert "failed to end a stream" in caplog.text


def test_a_stream_that_was_let_in_by_old_rules_gets_the_new_ones(bench: Bench) -> None:
    """Also if it opened while the others were looked over already."""
    old = bench.snapshots.current
    bench.snapshots.update(policy=Policy.model_validate({"rules": [{"principals": ["token:bob"]}]}))
    bench.revoker.check()
    late = FakeCall(STREAM)
    bench.revoker.add(late, table(alice="a").verify("a", 0), old)
    bench.revoker.check()
    assert late.ended == (grpc.StatusCode.PERMISSION_DENIED, "no rule allows this caller to call infer methods")


def test_a_flood_of_wrong_tokens_pushes_out_none_that_is_right(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a wrong one that comes again and again is verified once."""
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

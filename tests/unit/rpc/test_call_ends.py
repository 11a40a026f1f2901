"""Causes of ends without an answer."""

import math
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from inferd.rpc import call_ends
from inferd.rpc.accept import to_monotonic
from inferd.rpc.call_ends import (
    CANCELLED,
    EXPIRED,
    STOPPED,
    TOO_OLD,
    ConnectionAges,
    Ends,
    cause_of_end,
)

OPTIONS = {"grpc.max_connection_age_ms": 100_000, "grpc.max_connection_age_grace_ms": 20_000}


def fake_call(raw_peer: bytes, started_at: float, deadline: float = math.inf) -> Any:
    """The attributes of a call that matter here."""
    return SimpleNamespace(raw_peer=raw_peer, started_at=started_at, deadline=deadline)


def ages() -> ConnectionAges:
    made = ConnectionAges.of(OPTIONS)
    assert made is not None
    return made


@pytest.mark.parametrize("options", [{}, OPTIONS | {"grpc.max_connection_age_ms": 2**31 - 1}])
def test_no_ages_without_a_maximum(options: dict[str, int]) -> None:
    """Without a maximum age nothing is tracked."""
    assert ConnectionAges.of(options) is None


@pytest.mark.parametrize(
    ("first_call_at", "started_at", "now", "expected"),
    [
        # The core closes between 90 and 110 s, and cuts 20 s later.
        (0.0, 0.0, 110.0, TOO_OLD),
        (0.0, 0.0, 130.0, TOO_OLD),
        (0.5, 60.0, 110.0, TOO_OLD),
        (0.0, 0.0, 100.0, CANCELLED),
        # A call cannot have begun when the connection was to be closed already.
        (0.0, 112.0, 130.0, CANCELLED),
        (60.0, 60.0, 130.0, CANCELLED),
    ],
)
def test_detects_call_cut_with_its_connection(
    first_call_at: float, started_at: float, now: float, expected: call_ends.Cause
) -> None:
    """If the connection is as old as those the core closes, and the call as old as the grace; else it was cancelled."""
    ends = Ends(ages())
    assert ends.ages is not None
    for call_at in (first_call_at, started_at):
        ends.ages.add_call(b"ipv4:10.0.0.7:1", call_at)
        ends.ages.add_call(b"ipv4:10.0.0.8:1", 0.0)
    assert ends.cause(fake_call(b"ipv4:10.0.0.7:1", started_at), now) == expected


def test_deadline_and_server_stop_take_precedence() -> None:
    """Whatever the age of the connection."""
    ends = Ends(ages())
    call = fake_call(b"ipv4:10.0.0.7:1", 0.0, deadline=120.0)
    assert ends.cause(call, 120.0) == EXPIRED
    ends.is_stopped = True
    assert ends.cause(call, 120.0) == EXPIRED
    assert ends.cause(call, 115.0) == STOPPED
    assert STOPPED[0] is TOO_OLD[0] is grpc.StatusCode.UNAVAILABLE


def test_reused_port_is_a_new_connection() -> None:
    """When the earlier connection must be closed by then."""
    seen = ages()
    seen.add_call(b"ipv6:%5B::1%5D:1", 0.0)
    seen.add_call(b"ipv6:%5B::1%5D:1", 200.0)
    assert not seen.has_cut(fake_call(b"ipv6:%5B::1%5D:1", 200.0), 250.0)
    assert seen.has_cut(fake_call(b"ipv6:%5B::1%5D:1", 200.0), 320.0)


def test_unix_socket_connections_share_a_peer() -> None:
    """Only the call's own age is known."""
    seen = ages()
    seen.add_call(b"unix:/run/inferd.sock", 0.0)
    assert not seen.has_cut(fake_call(b"unix:/run/inferd.sock", 80.0), 130.0)
    assert seen.has_cut(fake_call(b"unix:/run/inferd.sock", 80.0), 200.0)


def test_number_of_connections_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expired connections are dropped too."""
    monkeypatch.setattr(call_ends, "_MAX_CONNECTIONS", 10)
    seen = ages()
    for number in range(100):
        seen.add_call(b"ipv4:10.0.0.7:%d" % number, 0.0)
    assert len(seen._first_call_at) == 10
    seen.add_call(b"ipv4:10.0.0.7:1", 1000.0)
    assert len(seen._first_call_at) == 1


def test_no_deadline_is_infinity():
    """The core represents it by 9.2e18."""
    assert to_monotonic(9.223372036854776e18, 5.0, 1.7e9) == math.inf


def test_converts_epoch_to_monotonic_seconds():
    """By the time that is left."""
    assert to_monotonic(1_700_000_002.5, 40.0, 1_700_000_000.0) == 42.5


def test_converts_a_deadline_in_the_past():
    """A call can wait longer for its acceptance than its deadline allows."""
    assert to_monotonic(1_699_999_999.0, 40.0, 1_700_000_000.0) == 39.0


@pytest.mark.parametrize(
    ("now", "deadline", "expected"),
    [
        (5.0, math.inf, "CANCELLED"),
        (5.0, 9.0, "CANCELLED"),
        (9.0, 9.0, "DEADLINE_EXCEEDED"),
        (9.5, 9.0, "DEADLINE_EXCEEDED"),
        (8.991, 9.0, "DEADLINE_EXCEEDED"),
        (99.2, 100.0, "DEADLINE_EXCEEDED"),
        (98.9, 100.0, "CANCELLED"),
    ],
)
def test_cause_of_an_end(now, deadline, expected):
    """A client's own deadline, rounded up by at most 1 % on the wire, cancels a little before ours."""
    code, details = cause_of_end(now=now, started_at=0.0, deadline=deadline)
    assert code.name == expected
    assert details

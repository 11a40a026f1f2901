"""What calls that the core has cut off are put down to."""

import math
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from inferd.rpc import call_ends
from inferd.rpc.call_ends import CANCELLED, EXPIRED, STOPPED, TOO_OLD, ConnectionAges, Ends

OPTIONS = {"grpc.max_connection_age_ms": 100_000, "grpc.max_connection_age_grace_ms": 20_000}


def fake_call(raw_peer: bytes, started_at: float, deadline: float = math.inf) -> Any:
    """All that is looked at of a call."""
    return SimpleNamespace(raw_peer=raw_peer, started_at=started_at, deadline=deadline)


def ages() -> ConnectionAges:
    made = ConnectionAges.of(OPTIONS)
    assert made is not None
    return made


@pytest.mark.parametrize("options", [{}, OPTIONS | {"grpc.max_connection_age_ms": 2**31 - 1}])
def test_connections_of_any_age(options: dict[str, int]) -> None:
    """Nothing is taken down of them."""
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
def test_a_call_is_cut_with_its_connection(
    first_call_at: float, started_at: float, now: float, expected: call_ends.Cause
) -> None:
    """If the connection is as old as those that are closed, and the call as old as the grace; else it was cancelled."""
    ends = Ends(ages())
    assert ends.ages is not None
    for call_at in (first_call_at, started_at):
        ends.ages.note(b"ipv4:10.0.0.7:1", call_at)
        ends.ages.note(b"ipv4:10.0.0.8:1", 0.0)
    assert ends.cause(fake_call(b"ipv4:10.0.0.7:1", started_at), now) == expected


def test_a_deadline_and_the_end_of_the_server_come_first() -> None:
    """Whatever the age of the connection."""
    ends = Ends(ages())
    call = fake_call(b"ipv4:10.0.0.7:1", 0.0, deadline=120.0)
    assert ends.cause(call, 120.0) == EXPIRED
    ends.is_stopped = True
    assert ends.cause(call, 120.0) == EXPIRED
    assert ends.cause(call, 115.0) == STOPPED
    assert STOPPED[0] is TOO_OLD[0] is grpc.StatusCode.UNAVAILABLE


def test_a_port_is_used_again() -> None:
    """When the connection before cannot be there any more, this is another one."""
    seen = ages()
    seen.note(b"ipv6:%5B::1%5D:1", 0.0)
    seen.note(b"ipv6:%5B::1%5D:1", 200.0)
    assert not seen.has_cut(fake_call(b"ipv6:%5B::1%5D:1", 200.0), 250.0)
    assert seen.has_cut(fake_call(b"ipv6:%5B::1%5D:1", 200.0), 320.0)


def test_connections_of_a_unix_socket_cannot_be_told_apart() -> None:
    """So that only the call's own age is known."""
    seen = ages()
    seen.note(b"unix:/run/inferd.sock", 0.0)
    assert not seen.has_cut(fake_call(b"unix:/run/inferd.sock", 80.0), 130.0)
    assert seen.has_cut(fake_call(b"unix:/run/inferd.sock", 80.0), 200.0)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of so many connections at the most, and of none that is gone."""
    monkeypatch.setattr(call_ends, "_MOST_CONNECTIONS", 10)
    seen = ages()
    for number in range(100):
        seen.note(b"ipv4:10.0.0.7:%d" % number, 0.0)
    assert len(seen._first_call_at) == 10
    seen.note(b"ipv4:10.0.0.7:1", 1000.0)
    assert len(seen._first_call_at) == 1

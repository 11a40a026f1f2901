"""Answers to one connection of gRPC's core leave together."""

from contextlib import closing

import pytest

from inferd.rpc import corks
from tests.integration.rpc.support import TIMEOUT_S, Running

BURST = 8


def test_answers_of_a_burst_are_written_under_a_cork(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second burst of a connection knows its socket."""
    corked: list[tuple[int, bool]] = []
    set_cork = corks._set_cork
    monkeypatch.setattr(corks, "_set_cork", lambda *change: corked.append(change) or set_cork(*change))
    with closing(Running().start()) as server:
        for burst in range(2):
            waiting = [server.unary("Held").future(b"", timeout=TIMEOUT_S) for _ in range(BURST)]
            calls = [server.held.next() for _ in waiting]
            server.server.poll_loop.call_soon(lambda calls=calls: [call.reply(b"answer") for call in calls])
            assert [future.result() for future in waiting] == [b"answer"] * BURST
            assert len(corked) == 2 * burst
    (descriptor, is_on), (same, is_still_on) = corked
    assert (descriptor, is_on, is_still_on) == (same, True, False)

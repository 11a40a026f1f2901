"""How the asyncio client packs the inputs of a stream into messages."""

import asyncio
from itertools import count

import numpy as np
import pytest

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.client import stream
from inferd.client.messages import RequestWriter
from inferd.client.stream import MESSAGE_BYTES, AsyncFeed, StreamLedger


class _Call:
    """Accepts messages at once, and records the number of requests of each."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.half_closed = False

    async def write(self, message: bytes) -> None:
        self.taken.append(len(pb.StreamInferRequest.FromString(message).requests))

    async def done_writing(self) -> None:
        self.half_closed = True


def _run(elements, *, max_in_flight: int = 100) -> list[int]:
    async def run() -> list[int]:
        call = _Call()
        ledger = StreamLedger(RequestWriter("m", "", (), 0, None), ordered=False)
        await AsyncFeed(elements, ledger, max_in_flight).run(call)
        assert call.half_closed
        return call.taken

    return asyncio.run(run())


@pytest.mark.parametrize(("tick_s", "taken"), [(0, [6]), (1, [2, 2, 2])])
def test_ready_elements_share_messages(monkeypatch, tick_s, taken):
    """But slow elements do not delay those before them."""
    monkeypatch.setattr(stream, "monotonic", count(step=tick_s).__next__)
    assert _run([{"x": n} for n in range(6)]) == taken


def test_slow_element_does_not_delay_earlier_ones():
    """They are sent meanwhile."""
    sent = asyncio.Event()

    class Watched(_Call):
        async def write(self, message: bytes) -> None:
            await super().write(message)
            sent.set()

    async def source():
        yield {"x": 1}
        yield {"x": 2}
        await sent.wait()
        yield {"x": 3}

    async def run() -> list[int]:
        call = Watched()
        ledger = StreamLedger(RequestWriter("m", "", (), 0, None), ordered=False)
        await AsyncFeed(source(), ledger, 100).run(call)
        return call.taken

    assert asyncio.run(run()) == [2, 1]


def test_collects_at_most_one_message(monkeypatch):
    """Large elements are read as gRPC accepts those before them."""
    monkeypatch.setattr(stream, "monotonic", lambda: 0)
    taken = _run([{"x": np.zeros(MESSAGE_BYTES // 2, np.uint8)}] * 5)
    assert taken == [1] * 5
    taken = _run([{"x": np.zeros(MESSAGE_BYTES // 2 - 100, np.uint8)}] * 5)
    assert (sum(taken), max(taken)) == (5, 2)

"""Fakes of a call and of a sink."""

from dataclasses import dataclass, field

import grpc
import orjson

from inferd.call_context import CallContext
from inferd.observability.recorder import FinishedCall
from inferd.rpc.core import SentMetadata
from inferd.rpc.interfaces import Finisher
from tests.unit.finishing import Finishing

INFER = "/inferd.v1.InferenceService/Infer"


@dataclass
class FakeCall(Finishing):
    """An RPC as the interceptors see it."""

    method: str = INFER
    peer: str = "ipv4:127.0.0.1:40000"
    raw_peer: bytes = b"ipv4:127.0.0.1:40000"
    metadata: tuple[tuple[str, str], ...] = ()
    started_at: float = 100.0
    ended_at: float = 100.5
    context: CallContext = field(default_factory=CallContext)
    annotations: dict[str, object] = field(default_factory=dict)
    trailing: list[tuple[str, str | bytes]] = field(default_factory=list)
    finishers: list[Finisher] = field(default_factory=list)

    def ended(self, code: grpc.StatusCode, details: str = "") -> FinishedCall:
        """The record of the recorder."""
        times, annotations = (self.ended_at, self.started_at), self.annotations or None
        return FinishedCall(*times, self.method, self.raw_peer, code, details, self.context, annotations)

    def add_trailing_metadata(self, pairs: SentMetadata) -> None:
        self.trailing += [
            (key.decode(), value.decode()) if isinstance(key, bytes) else (key, value) for key, value in pairs
        ]


class Sink:
    """Keeps each write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def __call__(self, data: memoryview) -> int:
        self.writes.append(bytes(data))
        return len(data)

    @property
    def lines(self) -> list[bytes]:
        return b"".join(self.writes).splitlines()

    @property
    def records(self) -> list[dict[str, object]]:
        return [orjson.loads(line) for line in self.lines]

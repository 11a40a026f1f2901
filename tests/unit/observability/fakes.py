"""A call, a clock and a sink that do what the test says."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

INFER = "/inferd.v1.InferenceService/Infer"


@dataclass
class FakeCall:
    """An RPC as the interceptors see it."""

    method: str = INFER
    peer: str = "ipv4:127.0.0.1:40000"
    metadata: tuple[tuple[str, str], ...] = ()
    started_at: float = 100.0
    ended_at: float = 100.5
    annotations: dict[str, object] = field(default_factory=dict)
    trailing: list[tuple[str, str | bytes]] = field(default_factory=list)

    def add_trailing_metadata(self, pairs: Sequence[tuple[str, str | bytes]]) -> None:
        self.trailing += pairs


class Sink:
    """Keeps what is written, write by write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def __call__(self, data: bytes) -> None:
        self.writes.append(data)

    @property
    def lines(self) -> list[bytes]:
        return b"".join(self.writes).splitlines()

    @property
    def records(self) -> list[dict[str, object]]:
        return [orjson.loads(line) for line in self.lines]

"""One attempt of a request, and its end. Times are those of the event loop's clock."""

from dataclasses import dataclass
from typing import NamedTuple

from inferd.bench.recorder import Status
from inferd.bench.retries import Refusal
from inferd.bench.traffic import Prepared


@dataclass(slots=True)
class Attempt:
    """A request on its way. ``sent_s`` is when it was handed to the network, and until then when it was begun."""

    prepared: Prepared
    sent_s: float

    def sent(self, now_s: float) -> bytes:
        """Record that the request is handed to the network; return its message."""
        self.sent_s = now_s
        return self.prepared.message


class Answer(NamedTuple):
    """A serialized response, and when it arrived."""

    message: bytes
    arrived_s: float


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that ended with a status other than OK."""

    refusal: Refusal
    reason: str = ""
    message: str = ""

    @property
    def status(self) -> Status:
        """The status under which the attempt is counted."""
        return self.refusal.code, self.reason

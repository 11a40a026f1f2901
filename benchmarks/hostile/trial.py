"""Sends one message after the other, and measures the effects on others."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.hostile.kind import Kind
from benchmarks.hostile.probes import Seen, Watcher, asks_health, asks_model
from benchmarks.hostile.sender import Sender
from benchmarks.hostile.target import Holdings, Target, serving

_PROBE_PAUSE_S = 0.002
_CALLER_PAUSE_S = 0.005
_SEND_TIMEOUT_S = 30.0
#: Time after the end of a call for leftovers to show.
_AFTER_S = 0.1
_QUIET_TIMEOUT_S = 200.0
#: Time allowed for resources to be closed or released.
_SETTLE_S = 20.0
_DETAILS = 200
_TRIES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """Effects of one message. ``growth_bytes`` is from before it to the peak.

    ``late_s``: how late an idle process woke meanwhile, for which no server is to blame.
    """

    kind: str
    method: str
    size: str
    message_bytes: int
    status: str
    details: str
    took_s: float
    silence_s: float
    late_s: float
    caller_silence_s: float
    caller_failures: dict[str, int]
    growth_bytes: int
    server_ended: bool


@dataclass(frozen=True, slots=True)
class Size:
    """Size of messages, and whether they are compressed."""

    mb: int
    gzip: bool = False

    def __str__(self) -> str:
        """Format for the tables."""
        return f"{self.mb} MB{', gzip' if self.gzip else ''}"


@dataclass(frozen=True, slots=True)
class Visit:
    """One server process: its resources before the first message and, if it survived, after the last."""

    before: Holdings
    after: Holdings | None


class Scene:
    """A server, its probes, and a sender."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.health = Watcher(asks_health, target.port, _PROBE_PAUSE_S)
        self.caller = Watcher(asks_model, target.port, _CALLER_PAUSE_S)
        self.sender = Sender(target.port, _SEND_TIMEOUT_S)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Start the probes and the sender."""
        for each in (self.health, self.caller, self.sender):
            self._stack.enter_context(each)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop them."""
        self._stack.close()

    def seen(self, began: float, ended: float) -> tuple[Seen, Seen]:
        """Return the observations of both probes, once each has had an answer since the end."""
        until = time.monotonic() + _QUIET_TIMEOUT_S
        while True:
            health, caller = self.health.seen_since(began), self.caller.seen_since(began)
            is_quiet = min(health.last_answer, caller.last_answer) > ended
            if is_quiet or self.target.has_ended or time.monotonic() > until:
                return health, caller
            time.sleep(0.02)

    def settled(self, base: Holdings, within_s: float) -> Holdings:
        """Return the server's resources once they are no more than at first, or after the timeout."""
        until = time.monotonic() + within_s
        while (found := self.target.holdings()).exceeds(base) and time.monotonic() < until:
            time.sleep(0.5)
        return found


def run(
    tree: Path,
    environment: Mapping[str, str],
    kinds: Sequence[Kind],
    sizes: Sequence[Size],
    worst: Callable[[Trial], float],
) -> Iterator[Trial | Visit]:
    """Send every kind in every size; a server that crashes is replaced.

    ``worst`` returns the largest ratio of a trial to its limits. A trial above 1 is repeated twice, and the median
    counts, because the machine may have been busy.
    """
    waiting = deque((kind, size) for size in sizes for kind in kinds)
    while waiting:
        with serving(tree, environment) as target, Scene(target) as scene:
            before = target.holdings()
            while waiting and not target.has_ended:
                yield _settle(scene, *waiting.popleft(), worst)
            yield Visit(before, None if target.has_ended else scene.settled(before, _SETTLE_S))


def _settle(scene: Scene, kind: Kind, size: Size, worst: Callable[[Trial], float]) -> Trial:
    first = _try(scene, kind, size)
    if first.server_ended or worst(first) <= 1:
        return first
    tried = [first]
    while len(tried) < _TRIES and not tried[-1].server_ended:
        tried.append(_try(scene, kind, size))
    if tried[-1].server_ended:
        return tried[-1]
    return sorted(tried, key=worst)[_TRIES // 2]


def _try(scene: Scene, kind: Kind, size: Size) -> Trial:
    target = scene.target
    message_bytes = scene.sender.make(kind.name, size.mb * 1_000_000)
    target.reset_peak()
    rss_bytes = target.rss_bytes
    sent = scene.sender.send(gzip=size.gzip)
    health, caller = scene.seen(sent.began, sent.ended + _AFTER_S)
    has_ended = target.has_ended
    return Trial(
        kind=kind.name,
        method=kind.method,
        size=str(size),
        message_bytes=message_bytes,
        status=sent.status,
        details=sent.details[:_DETAILS],
        took_s=sent.ended - sent.began,
        silence_s=health.silence_s,
        late_s=health.late_s,
        caller_silence_s=caller.silence_s,
        caller_failures=caller.failures,
        growth_bytes=0 if has_ended else target.peak_rss_bytes - rss_bytes,
        server_ended=has_ended,
    )

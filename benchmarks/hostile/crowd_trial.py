"""Effects of a crowd of callers on a server, during its attack and ten seconds after it."""

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.hostile.child import Child
from benchmarks.hostile.crowds import CROWDS, MIB
from benchmarks.hostile.sender import NICE
from benchmarks.hostile.target import serving
from benchmarks.hostile.trial import Scene, Visit

#: Memory budget of requests, set because the default depends on the machine.
BUDGET_BYTES = 512 * MIB
_BUDGET = {"INFERD_SERVER__MEMORY_BUDGET_BYTES": str(BUDGET_BYTES)}
_HOLD_S = 3.0
_AFTER_S = 10.0
_CROWD_TIMEOUT_S = 300.0
_SETTLE_S = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class CrowdTrial:
    """The statuses that a crowd got, and its effects."""

    crowd: str
    answers: dict[str, int]
    took_s: float
    silence_s: float
    late_s: float
    caller_silence_s: float
    caller_failures: dict[str, int]
    rss_before_bytes: int
    rss_peak_bytes: int
    rss_after_bytes: int
    server_ended: bool


def run(tree: Path, environment: Mapping[str, str], names: Sequence[str]) -> Iterator[CrowdTrial | Visit]:
    """Run each crowd against a server; one that crashes is replaced."""
    waiting = list(names)
    while waiting:
        with serving(tree, {**_BUDGET, **environment}) as target, Scene(target) as scene:
            before = target.holdings()
            while waiting and not target.has_ended:
                yield _attack(scene, waiting.pop(0))
            yield Visit(before, None if target.has_ended else scene.settled(before, _SETTLE_S))


def _attack(scene: Scene, name: str) -> CrowdTrial:
    target = scene.target
    with Child(_crowd, name, target.port) as crowd:
        crowd.pipe.recv()
        target.reset_peak()
        rss_before, began = target.rss_bytes, time.monotonic()
        crowd.pipe.send(None)
        answers = crowd.pipe.recv() if crowd.pipe.poll(_CROWD_TIMEOUT_S) else Counter(["never done"])
        took_s = time.monotonic() - began
        time.sleep(_HOLD_S)
        crowd.pipe.send(None)
        crowd.process.join(_HOLD_S)
    ended = time.monotonic()
    time.sleep(_AFTER_S)
    health, caller = scene.seen(began, ended)
    has_ended = target.has_ended
    return CrowdTrial(
        crowd=name,
        answers=dict(answers),
        took_s=took_s,
        silence_s=health.silence_s,
        late_s=health.late_s,
        caller_silence_s=caller.silence_s,
        caller_failures=caller.failures,
        rss_before_bytes=rss_before,
        rss_peak_bytes=0 if has_ended else target.peak_rss_bytes,
        rss_after_bytes=0 if has_ended else target.rss_bytes,
        server_ended=has_ended,
    )


def _crowd(name: str, port: int, pipe: Connection) -> None:
    os.nice(NICE)
    pipe.send(None)
    pipe.recv()
    with CROWDS[name](port) as answers:
        pipe.send(answers)
        pipe.recv()

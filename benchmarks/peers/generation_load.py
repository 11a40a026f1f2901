"""The load of language models, the same for all peers. Needs nothing but Python, as each peer has its own environment.

A case is ``N`` (N requests at once: prompts of 64 tokens, 64 new ones) or ``mixN`` (3 N requests, N in flight: prompts
of 8 to 120 tokens, 8 to 128 new ones). Tokens are random, and end tokens are ignored.
"""

import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

_SEED = 7
_PROMPT = 64
_NEW = 64
_TIMEOUT_S = 300
#: Before cases that are measured.
WARM_UP = "1"

#: Begins a request; is given the prompt, the number of new tokens and where the times of tokens go.
Start = Callable[[Sequence[int], int, "Record"], None]


class Record:
    """When a request was submitted, and when each of its tokens came. `done` once it has ended."""

    def __init__(self, on_done: Callable[[], None]) -> None:
        self.submitted_at = time.perf_counter()
        self.tokens_at: list[float] = []
        self._on_done = on_done

    def tokens(self, count: int) -> None:
        """Note that ``count`` tokens have come."""
        self.tokens_at.extend([time.perf_counter()] * count)

    def done(self) -> None:
        """Note the end of the request."""
        self._on_done()


@dataclass
class Case:
    """Requests, as prompts and numbers of new tokens, of which ``in_flight`` are open at a time."""

    name: str
    in_flight: int
    requests: list[tuple[list[int], int]] = field(default_factory=list)

    @classmethod
    def named(cls, name: str) -> "Case":
        """Return the case with this name."""
        draw = random.Random(_SEED)

        def request(prompt: int, new: int) -> tuple[list[int], int]:
            return [draw.randrange(200, 40_000) for _ in range(prompt)], new

        if name.startswith("mix"):
            in_flight = int(name[3:])
            requests = [request(draw.randint(8, 120), draw.randint(8, 128)) for _ in range(3 * in_flight)]
            return cls(name, in_flight, requests)
        return cls(name, int(name), [request(_PROMPT, _NEW) for _ in range(int(name))])


def run(case: Case, start: Start) -> dict[str, object]:
    """Run a case and return its figures; ``start`` begins a request, in a thread of its own if it has to wait."""
    room, ended = threading.Semaphore(case.in_flight), threading.Semaphore(0)
    records = []

    def done() -> None:
        room.release()
        ended.release()

    began = time.perf_counter()
    for prompt, new in case.requests:
        room.acquire(timeout=_TIMEOUT_S)
        record = Record(done)
        records.append(record)
        start(prompt, new, record)
    for _ in records:
        if not ended.acquire(timeout=_TIMEOUT_S):
            raise TimeoutError(f"{case.name}: a request has not ended after {_TIMEOUT_S} s")
    return figures(case, records, time.perf_counter() - began)


def figures(case: Case, records: Sequence[Record], seconds: float) -> dict[str, object]:
    """Return throughput in tokens per second, and latencies in milliseconds."""
    got = [len(record.tokens_at) for record in records]
    wanted = [new for _, new in case.requests]
    first = [record.tokens_at[0] - record.submitted_at for record in records if record.tokens_at]
    between = [b - a for record in records for a, b in zip(record.tokens_at, record.tokens_at[1:], strict=False)]
    return {
        "case": case.name,
        "tokens_per_s": sum(got) / seconds,
        "short": sum(have < want for have, want in zip(got, wanted, strict=True)),
        "first_p50_ms": percentile(first, 50),
        "first_p99_ms": percentile(first, 99),
        "between_p50_ms": percentile(between, 50),
        "between_p99_ms": percentile(between, 99),
    }


def percentile(values: Sequence[float], of_100: float) -> float:
    """Return a percentile of seconds in milliseconds; 0 without values."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    at = (len(ordered) - 1) * of_100 / 100
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return 1000 * (ordered[low] + (ordered[high] - ordered[low]) * (at - low))


def report(result: dict[str, object]) -> None:
    """Print figures as the benchmark reads them: a line of JSON."""
    print(json.dumps(result), flush=True)

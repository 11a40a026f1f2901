"""How steady a language model is in inferd: while long prompts join, and what it does to a small model beside it.

- *joins*: eight streams, while each second a prompt of 512 tokens joins for eight new ones. Times between tokens are
  those of the streams, while all eight run.
- *beside*: the model ``small`` at 200 requests a second, alone and beside 32 requests for text in flight.
"""

import argparse
import json
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median

from benchmarks import generation_clients, machine
from benchmarks.generation import serving
from benchmarks.load import grpcload
from benchmarks.models import MODELS
from benchmarks.peers.generation_load import WARM_UP, Case, Record, Start, percentile, run
from benchmarks.report import RESULTS, console
from benchmarks.wires import MODEL_INFER, open_inference_request

_TRIALS = ("joins", "beside")
_SEED = 3
_TIMEOUT_S = 300
#: *joins*: the streams, and what joins them.
_STREAMS, _STREAM_PROMPT, _STREAM_NEW = 8, 64, 384
_JOIN_EVERY_S, _JOIN_PROMPT, _JOIN_NEW = 1.0, 512, 8
#: *beside*: the load on the small model, and requests for text in flight.
_SMALL = MODELS["small"]
_RATE_PER_S, _SMALL_S = 200.0, 12.0
_IN_FLIGHT = 32


def main() -> None:
    """Measure, print the medians and write ``results/generation_steady.json``."""
    options = _options()
    output, measured = console(), []
    for number in range(options.rounds):
        with serving(options.model, options.set, [f"{_SMALL.served_as}={_SMALL.folder}"]) as (port, _):
            start = generation_clients.over_grpc(port, 0)
            run(Case.named(WARM_UP), start)
            for trial in options.only or _TRIALS:
                figures = joins(start) if trial == "joins" else beside(start, port)
                measured.append({"trial": trial, **figures})
                output.print(f"round {number + 1}", measured[-1])
    medians = {trial: _medians([each for each in measured if each["trial"] == trial]) for trial in _TRIALS}
    output.print("medians", medians)
    content = {"machine": machine.describe(), "settings": options.set, "medians": medians, "rounds": measured}
    (RESULTS / f"{options.name}.json").write_text(json.dumps(content, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder that scripts/build_smollm2.py has written")
    parser.add_argument("--only", action="append", choices=_TRIALS)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the server")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", default="generation_steady", help="of the file with the results")
    return parser.parse_args()


def _medians(rounds: Sequence[dict[str, object]]) -> dict[str, float]:
    names = [name for name, value in rounds[0].items() if isinstance(value, float)] if rounds else []
    return {name: median(float(str(each[name])) for each in rounds) for name in names}


class _Streams:
    """Requests that were started, of which all but those that join are looked at."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._draw = random.Random(_SEED)
        self.ended = threading.Event()
        self.records: list[Record] = []

    def begin(self, prompt: int, new: int) -> Record:
        record = Record(self.ended.set)
        self._start(_prompt(self._draw, prompt), new, record)
        return record

    def join_until_one_ends(self) -> int:
        """Let prompts join; return how many did."""
        joined = 0
        while not self.ended.wait(_JOIN_EVERY_S):
            self._start(_prompt(self._draw, _JOIN_PROMPT), _JOIN_NEW, Record(lambda: None))
            joined += 1
        return joined


def joins(start: Start) -> dict[str, object]:
    """Return the times between tokens of streams while prompts join."""
    streams = _Streams(start)
    records = [streams.begin(_STREAM_PROMPT, _STREAM_NEW) for _ in range(_STREAMS)]
    joined = streams.join_until_one_ends()
    all_began = max(record.tokens_at[0] for record in records)
    first_ended = min(record.tokens_at[-1] for record in records)
    gaps = [gap for record in records for gap in _gaps(record, all_began, first_ended)]
    p50, p99 = percentile(gaps, 50), percentile(gaps, 99)
    return {
        "joined": joined,
        "gaps": len(gaps),
        "p50_ms": p50,
        "p99_ms": p99,
        "max_ms": percentile(gaps, 100),
        "p99_over_p50": p99 / p50,
    }


def _gaps(record: Record, begin: float, end: float) -> Iterator[float]:
    for before, after in zip(record.tokens_at, record.tokens_at[1:], strict=False):
        if begin <= before and after <= end:
            yield after - before


def beside(start: Start, port: int) -> dict[str, object]:
    """Return latencies of the small model, alone and beside requests for text."""
    alone = _small(port)
    with _generating(start) as tokens:
        together = _small(port)
    figures: dict[str, object] = {"tokens_per_s": tokens[0]}
    for name, tally in (("alone", alone), ("beside", together)):
        figures |= {f"{name}_{key}_ms": value for key, value in asdict(tally.latency_ms).items()}
        figures[f"{name}_per_s"] = tally.ok_per_s
    return figures | {"p99_beside_over_alone": together.latency_ms.p99 / alone.latency_ms.p99}


def _small(port: int) -> grpcload.Tally:
    load = grpcload.Load(
        target=f"127.0.0.1:{port}",
        method=MODEL_INFER,
        message=open_inference_request(_SMALL, _SMALL.rows()[0]).SerializeToString(),
        poisson_per_s=_RATE_PER_S,
        duration_s=_SMALL_S,
    )
    return grpcload.run(load).load


@contextmanager
def _generating(start: Start) -> Iterator[list[float]]:
    """Keep requests for text in flight; the list that is returned gets their tokens per second at the end."""
    found: list[float] = []
    is_over = threading.Event()
    room = threading.Semaphore(_IN_FLIGHT)
    records: list[Record] = []
    feeder = threading.Thread(target=_feed, args=(start, room, records, is_over))
    feeder.start()
    try:
        yield found
    finally:
        is_over.set()
        feeder.join()
        # All places are free again when all have ended.
        for _ in range(_IN_FLIGHT):
            room.acquire(timeout=_TIMEOUT_S)
        times = sorted(at for record in records for at in record.tokens_at)
        found.append(len(times) / (times[-1] - times[0]))


def _feed(start: Start, room: threading.Semaphore, records: list[Record], is_over: threading.Event) -> None:
    draw = random.Random(_SEED)
    while not is_over.is_set():
        room.acquire(timeout=_TIMEOUT_S)
        records.append(Record(room.release))
        start(_prompt(draw, draw.randint(8, 120)), draw.randint(8, 128), records[-1])


def _prompt(draw: random.Random, tokens: int) -> list[int]:
    return [draw.randrange(200, 40_000) for _ in range(tokens)]


if __name__ == "__main__":
    main()

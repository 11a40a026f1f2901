"""The autoscaling signal of a replica with a language model, at a fifth, once, twice and five times what it can do.

The replica is the server's own engine and metrics with a fake clock and a decoder whose runs take a fixed time, as in
`test_autoscaling`. What it can do is what it does under overload.
"""

from pathlib import Path

import numpy as np
import pytest
from prometheus_client import generate_latest

from inferd.batching.ports import Clock
from inferd.config.generation import GenerationSettings
from inferd.config.settings import QueueSettings
from inferd.generation.engine import GenerationEngine
from inferd.generation.request import Delta, GenerationRequest, TokenIds
from inferd.observability.metrics.registry import Metrics, ModelSample, new_registry
from inferd.observability.recorder import CallRecorder
from inferd.runtime.signature import Logits
from tests.chart.test_autoscaling import SCRAPE_S, SCRAPES, check, trigger
from tests.fakes import FakeClock, ManualPollThread
from tests.unit.observability.metrics.samples import sources

#: Of the signal; the forecast counts a step for the first token, which comes with the prompt.
TOLERANCE = 0.1

SLOTS, PROMPT_TOKENS, MAX_TOKENS = 4, 16, 32


class _Nobody:
    """Takes what is generated."""

    def on_delta(self, delta: Delta) -> None:
        pass

    def on_error(self, error: Exception) -> None:
        pass


class _Decoder:
    """Has the replica's time pass; a step of four sequences costs less than twice as much as one of one."""

    slots, context_length, vocabulary_size, cache_bytes_per_token = SLOTS, 64, 8, 100

    def __init__(self, replica: "_Replica") -> None:
        self._replica = replica
        self._logits = np.zeros((SLOTS, self.vocabulary_size), np.float32)

    def prefill(self, slot: int, ids: TokenIds, past: int) -> Logits:
        self._replica.take(0.001 * len(ids))
        return self._logits[0].copy()

    def decode(self, ids: list[int], past: list[int]) -> Logits:
        self._replica.take(0.03 + 0.005 * len(ids))
        return self._logits[: len(ids)].copy()

    def stop_run(self) -> None:
        pass

    def move(self, source: int, target: int, tokens: int) -> None:
        pass

    def release(self, slot: int, tokens: int, kept: int = 0) -> None:
        pass


class _Replica:
    """A server without sockets and threads, with a fake clock."""

    def __init__(self) -> None:
        self._clock = FakeClock(0.0)
        self._registry = new_registry()
        self._metrics = Metrics(self._registry, CallRecorder(), methods=[])
        poll_thread = ManualPollThread(self._clock)
        self.stats = self._metrics.generation_stats_for("lm", "1")
        self._engine = GenerationEngine(
            name="lm",
            decoder=_Decoder(self),
            detokenizer=None,
            settings=GenerationSettings(max_waiting_requests=16),
            queue=QueueSettings(),
            max_run_s=60.0,
            clock=self._clock,
            poll_thread=poll_thread,
            alarm=poll_thread,
            stats=self.stats,
        )
        self._every_s = self._next_request = self._next_scrape = 0.0
        self._scrapes: list[str] = []

    def scraped(self, requests_per_s: float) -> list[str]:
        """Submit requests at this rate; return the scrapes meanwhile."""
        self._every_s = 1 / requests_per_s
        self._next_request = self._clock.now
        self._next_scrape = self._clock.now + SCRAPE_S
        self._scrapes = []
        while len(self._scrapes) < SCRAPES:
            if self._engine.unanswered_requests:
                self._engine.loop.run_once()
            else:
                self._pass(min(self._next_request, self._next_scrape))
        return self._scrapes[:SCRAPES]

    def take(self, seconds: float) -> None:
        """Let a run take this long."""
        self._pass(self._clock.now + seconds)

    def _pass(self, until: float) -> None:
        while (now := min(self._next_request, self._next_scrape)) <= until:
            self._clock.now = now
            if now == self._next_scrape:
                self._next_scrape += SCRAPE_S
                self._metrics.set_sources(sources(self._sample()))
                self._scrapes.append(generate_latest(self._registry).decode())
            else:
                self._next_request += self._every_s
                self._engine.submit(_request(self._clock))
        self._clock.now = until

    def _sample(self) -> ModelSample:
        return ModelSample(model="lm", version="1", state="ready", instances=1, generation=self._engine.sample())


def _request(clock: Clock) -> GenerationRequest:
    prompt = np.ones(PROMPT_TOKENS, np.int64)
    return GenerationRequest(prompt=prompt, max_tokens=MAX_TOKENS, receiver=_Nobody(), received_at=clock())


@pytest.mark.parametrize("load", [0.2, 1.0, 2.0, 5.0])
def test_signal_is_number_of_replicas_for_load(load: float, tmp_path: Path) -> None:
    """It keeps growing while requests are rejected, and knows of full steps when it makes small ones."""
    replica = _Replica()
    replica.scraped(20.0)
    capacity_per_s = replica.stats.read().finished["length"] / (SCRAPE_S * SCRAPES)
    query, threshold = trigger()
    wanted = load / threshold
    scrapes = replica.scraped(load * capacity_per_s)
    check(tmp_path, scrapes, [(f"({query}) / {threshold}", wanted * (1 - TOLERANCE), wanted * (1 + TOLERANCE))])

"""An engine of language models on a fake decoder; the test makes one run after another."""

import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue

import numpy as np

from inferd.config.generation import GenerationSettings
from inferd.config.settings import QueueSettings
from inferd.errors import ServingError
from inferd.generation.engine import GenerationEngine
from inferd.generation.request import Delta, GenerationRequest, Sampling, StopConditions, TokenIds
from inferd.observability.metrics.generation import GenerationStats
from inferd.runtime.errors import RunFailedError
from inferd.runtime.signature import Logits
from tests.fakes import FakeClock, ManualPollThread
from tests.patience import PATIENCE_S

VOCABULARY = 32
#: Ends an answer, in about one of sixteen steps.
END = 1

#: Slot, tokens and past of each row of a run.
Run = list[tuple[int, list[int], int]]

_PRIME = 1_000_003
_MODULUS = 2**61 - 1
_FACTORS = np.arange(1, VOCABULARY + 1, dtype=np.uint64) * np.uint64(2_654_435_761)


class FakeDecoder:
    """A decoder whose logits follow from all tokens of a slot, as they were written, moved and released.

    ``runs`` records slot, tokens and past of each row of each run. ``fails`` is called with each run, and may raise. A
    run takes ``run_s`` on ``clock``, a number or a function of the run, and calls ``during``.
    """

    def __init__(
        self, *, slots: int = 4, context: int = 64, token_bytes: int = 1024, run_s: float | Callable[[Run], float] = 0.0
    ) -> None:
        self.slots = slots
        self.context_length = context
        self.vocabulary_size = VOCABULARY
        self.scores_prompts = True
        self.cache_bytes_per_token = token_bytes
        self.runs: list[Run] = []
        self.fails: Callable[[Run], None] = lambda _run: None
        self.during: Callable[[], None] = lambda: None
        self.stops = 0
        self.moves: list[tuple[int, int, int]] = []
        self.clock: FakeClock | None = None
        self.run_s = run_s if callable(run_s) else lambda _run: run_s
        # The hash of the first n tokens; None where nothing was written.
        self._hashes: list[list[int | None]] = [[7] + [None] * context for _ in range(slots)]

    def prefill(self, slot: int, ids: TokenIds, past: int) -> Logits:
        """As `Decoder.prefill`."""
        assert len(ids)
        return self._run([(slot, ids.tolist(), past)])[0]

    def score(self, slot: int, ids: TokenIds, past: int) -> Logits:
        """As `Decoder.score`."""
        self._run([(slot, ids.tolist(), past)])
        return np.stack([self._logits(slot, past + read) for read in range(1, len(ids) + 1)])

    def decode(self, ids: Sequence[int], past: Sequence[int]) -> Logits:
        """As `Decoder.decode`."""
        return self._run([(slot, [token], length) for slot, (token, length) in enumerate(zip(ids, past, strict=True))])

    def _run(self, run: Run) -> Logits:
        self.runs.append(run)
        if self.clock is not None:
            self.clock.advance(self.run_s(run))
        self.during()
        self.fails(run)
        return np.stack([self._write(slot, tokens, past) for slot, tokens, past in run])

    def _write(self, slot: int, tokens: list[int], past: int) -> Logits:
        hashes = self._hashes[slot]
        for at, token in enumerate(tokens, past):
            before = hashes[at]
            assert before is not None, f"slot {slot} holds nothing at {at}"
            hashes[at + 1] = (before * _PRIME + token + 1) % _MODULUS
        return self._logits(slot, past + len(tokens))

    def _logits(self, slot: int, length: int) -> Logits:
        """Return the logits after the first ``length`` tokens of a slot."""
        last = self._hashes[slot][length]
        assert last is not None, f"slot {slot} holds nothing at {length}"
        mixed = (_FACTORS * np.uint64(last)) >> np.uint64(40)
        return (mixed % np.uint64(4096)).astype(np.float32) / 512

    def stop_run(self) -> None:
        """As `Decoder.stop_run`."""
        self.stops += 1

    def move(self, source: int, target: int, tokens: int) -> None:
        """As `Decoder.move`."""
        self.moves.append((source, target, tokens))
        self._hashes[target][: tokens + 1] = self._hashes[source][: tokens + 1]

    def release(self, slot: int, tokens: int, kept: int = 0) -> None:
        """As `Decoder.release`."""
        assert tokens == 0 or self._hashes[slot][tokens] is not None
        self._hashes[slot][1 + kept :] = [None] * (self.context_length - kept)

    @property
    def held_tokens(self) -> int:
        """The tokens that were written and not released."""
        return sum(value is not None for hashes in self._hashes for value in hashes[1:])


def failing(run: object = None) -> None:
    """Fail a run."""
    raise RunFailedError(RuntimeError("no"))


class FakeReceiver:
    """Records deltas and the error of a request; ``calls_after_end`` counts calls that should not have come."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.error: ServingError | None = None
        self.is_cancelled = False
        self.calls_after_end = 0

    def on_delta(self, delta: Delta) -> None:
        self.calls_after_end += self.has_ended
        self.deltas.append(delta)

    def on_error(self, error: ServingError) -> None:
        self.calls_after_end += self.has_ended
        self.error = error

    @property
    def tokens(self) -> list[int]:
        """All tokens."""
        return [token for delta in self.deltas for token in delta.token_ids]

    @property
    def text(self) -> str:
        """All text."""
        return "".join(delta.text for delta in self.deltas)

    @property
    def is_complete(self) -> bool:
        """True if the last delta has come."""
        return bool(self.deltas) and self.deltas[-1].finish_reason is not None

    @property
    def has_ended(self) -> bool:
        """True if no further call may come."""
        return self.is_complete or self.error is not None or self.is_cancelled


def a_request(
    prompt: Sequence[int] | int = 3, max_tokens: int = 4, *, ends: bool = False, **fields
) -> GenerationRequest:
    """Return a request, whose ``prompt`` may be a number of tokens; it ends at `END` if it ``ends``."""
    ids = [2 + n % 7 for n in range(prompt)] if isinstance(prompt, int) else prompt
    return GenerationRequest(
        prompt=np.array(ids, dtype=np.int64),
        max_tokens=max_tokens,
        receiver=FakeReceiver(),
        **{"received_at": 100.0, "stops": StopConditions(token_ids=frozenset([END])) if ends else StopConditions()}
        | fields,
    )


def sampled(seed: int, **fields) -> Sampling:
    """Return sampling parameters that are not greedy."""
    return Sampling(**{"temperature": 1.0, "top_k": 12, "top_p": 0.9, "seed": seed} | fields)


class Generation:
    """An engine whose thread is the test's: `run` makes one run."""

    def __init__(
        self, decoder: FakeDecoder | None = None, *, max_run_s=60.0, queue=None, seeds=((), ()), **settings
    ) -> None:
        self.clock = FakeClock()
        self.poll_thread = ManualPollThread(self.clock)
        self.alarm = ManualPollThread(self.clock)
        self.decoder = decoder or FakeDecoder()
        self.decoder.clock = self.clock
        self.stats = GenerationStats()
        self.engine = GenerationEngine(
            name="m",
            decoder=self.decoder,
            detokenizer=None,
            settings=GenerationSettings(**{"prefill_chunk_tokens": 8} | settings),
            queue=QueueSettings(**queue or {}),
            max_run_s=max_run_s,
            clock=self.clock,
            poll_thread=self.poll_thread,
            alarm=self.alarm,
            stats=self.stats,
            step_seeds=seeds[0],
            chunk_seeds=seeds[1],
        )

    def submit(self, *requests: GenerationRequest) -> None:
        """Submit ``requests`` in order."""
        for request in requests:
            self.engine.submit(request)

    def cancel(self, request: GenerationRequest) -> None:
        """Cancel ``request``; its receiver expects nothing more."""
        request.receiver.is_cancelled = True
        self.engine.cancel(request)

    @property
    def is_busy(self) -> bool:
        """True if sequences run or requests wait."""
        return self.engine.running > 0 or self.engine.waiting > 0

    def run(self, times: int = 1) -> None:
        """Make up to ``times`` runs, until there is nothing to run."""
        for _ in range(times):
            if self.is_busy:
                self.engine.loop.run_once()
                self.check()

    def finish(self) -> None:
        """Run until no request runs or waits."""
        for _ in range(100_000):
            if not self.is_busy:
                return
            self.run()
        raise AssertionError("requests still run or wait after 100,000 runs")

    def check(self) -> None:
        """Check the invariants between any two runs."""
        slots, budget = self.engine.loop.slots, self.engine.loop.budget
        assert [sequence.slot for sequence in slots] == list(range(len(slots)))
        assert len(slots) <= self.decoder.slots
        assert budget.reserved == sum(sequence.request.rows for sequence in slots) <= budget.total
        assert self.decoder.held_tokens == sum(sequence.length for sequence in slots)


def alone(request: GenerationRequest, **settings) -> list[int]:
    """Return the tokens that a copy of ``request`` gets when nothing else runs."""
    generation = Generation(FakeDecoder(slots=1, context=4096), **settings)
    same = a_request(
        request.prompt.tolist(), request.max_tokens, sampling=request.sampling, stops=request.stops, priority=1
    )
    generation.submit(same)
    generation.finish()
    assert same.receiver.is_complete
    return same.receiver.tokens


class OwnPollThread:
    """A poll thread that is the test's own, while an engine has a real one."""

    def __init__(self) -> None:
        self._callbacks: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def call_soon(self, callback: Callable[[], None]) -> None:
        """As `PollThread.call_soon`."""
        self._callbacks.put(callback)

    def call_when_idle(self, callback: Callable[[], None]) -> None:
        """As `PollThread.call_when_idle`."""
        self._callbacks.put(callback)

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Do nothing: these requests have no deadlines."""

    def run_ready(self) -> None:
        """Call the callbacks that have come."""
        while not self._callbacks.empty():
            self._callbacks.get()()

    def run_until(self, is_done: Callable[[], bool]) -> None:
        """Call callbacks as they come until ``is_done``."""
        while not is_done():
            self._callbacks.get(timeout=PATIENCE_S)()


def started_engine(decoder, poll_thread: OwnPollThread, **settings) -> GenerationEngine:
    """Return an engine with a thread of its own."""
    engine = GenerationEngine(
        name="m",
        decoder=decoder,
        detokenizer=None,
        settings=GenerationSettings(**settings),
        queue=QueueSettings(),
        max_run_s=PATIENCE_S,
        clock=time.monotonic,
        poll_thread=poll_thread,
        alarm=poll_thread,
        stats=GenerationStats(),
    )
    engine.start()
    return engine

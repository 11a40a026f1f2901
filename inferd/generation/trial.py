"""Trial runs of a language model at load: `verify` that sequences are independent, `warm_up` to time its runs."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from inferd.generation.ports import Decoder
from inferd.generation.request import TokenIds
from inferd.runtime.batch_axes.verdict import Standing, Verdict
from inferd.runtime.errors import ModelLoadError, RunFailedError, runtime_message
from inferd.runtime.signature import Logits

_log = logging.getLogger(__name__)

#: Lengths of the trial prompts; each is prefilled in two chunks, the first of `_CHUNK` tokens, and then decoded.
_PROMPT_TOKENS = (5, 9, 3, 6)
_CHUNK = 2
_STEPS = 4
#: The first sequence is removed before this step, so that the last one moves to its slot.
_REMOVED_BEFORE = 2

#: A difference of this share of the range of the logits is no rounding: sequences disturb each other.
_MAX_ROUNDING = 0.1

#: Runs of up to this time are repeated to measure them, at most this many times.
_REPEATED_S = 0.05
_REPEATS = 2


@dataclass(frozen=True, slots=True)
class RunSeeds:
    """Run times of the warm-up: sequences and seconds of decode steps, tokens and seconds of prefill chunks."""

    steps: Sequence[tuple[int, float]] = field(default_factory=tuple)
    chunks: Sequence[tuple[int, float]] = field(default_factory=tuple)


NO_SEEDS = RunSeeds()


def verify(decoder: Decoder) -> Verdict:
    """Compare the logits of sequences that run together with those of the same sequences alone, bit for bit.

    Meanwhile a sequence is removed, and another moves to its slot. The verdict is UNPROVEN if the logits differ from
    run to run, CONTRADICTED if they differ by rounding. Raises `ModelLoadError` if sequences disturb each other, or if
    the model does not run.
    """
    try:
        return _verdict(decoder)
    except RunFailedError as error:
        # The error may be quoted, because the prompts are synthetic: it has no data of callers.
        raise ModelLoadError(f"the model does not run: {runtime_message(error.cause)}") from error.cause


def _verdict(decoder: Decoder) -> Verdict:
    prompts = _prompts(decoder)
    alone = [_run_alone(decoder, prompt) for prompt in prompts]
    repeated = [_run_alone(decoder, prompt) for prompt in prompts[:1]]
    if difference := _difference(alone[:1], repeated):
        reason = f"its logits differ by up to {difference:.2g} from run to run"
        return Verdict(standing=Standing.UNPROVEN, reason=reason)
    together = _run_together(decoder, prompts)
    difference = _difference(alone, together)
    if not difference:
        return Verdict(standing=Standing.PROVEN)
    reason = f"beside others, the logits of a sequence differ by up to {difference:.2g} from those alone"
    logits_range = max(float(np.ptp(each)) for logits in alone for each in logits)
    if difference > _MAX_ROUNDING * logits_range:
        raise ModelLoadError(f"{reason}, so sequences disturb each other")
    return Verdict(standing=Standing.CONTRADICTED, reason=reason)


def _prompts(decoder: Decoder) -> list[TokenIds]:
    random = np.random.default_rng(0)
    count = min(decoder.slots, len(_PROMPT_TOKENS))
    return [random.integers(decoder.vocabulary_size, size=size) for size in _PROMPT_TOKENS[:count]]


def _run_alone(decoder: Decoder, prompt: TokenIds) -> list[Logits]:
    """Generate greedily; return the logits after the prompt and after each generated token."""
    found = [_prefill(decoder, 0, prompt)]
    for step in range(_STEPS):
        found.append(decoder.decode([_greedy(found[-1])], [len(prompt) + step])[0].copy())
    decoder.release(0, len(prompt) + _STEPS)
    return found


def _run_together(decoder: Decoder, prompts: Sequence[TokenIds]) -> list[list[Logits]]:
    """Return the same for ``prompts`` that run together; fewer logits of the first one, which is removed early."""
    found = [[_prefill(decoder, slot, prompt)] for slot, prompt in enumerate(prompts)]
    # The prompt in each slot, by its index.
    slots = list(range(len(prompts)))
    for step in range(_STEPS):
        if step == _REMOVED_BEFORE and len(slots) > 1:
            last = slots.pop()
            decoder.release(0, len(prompts[slots[0]]) + step)
            decoder.move(len(slots), 0, len(prompts[last]) + step)
            decoder.release(len(slots), len(prompts[last]) + step)
            slots[0] = last
        logits = decoder.decode([_greedy(found[n][-1]) for n in slots], [len(prompts[n]) + step for n in slots])
        for row, n in enumerate(slots):
            found[n].append(logits[row].copy())
    for slot, n in enumerate(slots):
        decoder.release(slot, len(prompts[n]) + _STEPS)
    return found


def _prefill(decoder: Decoder, slot: int, prompt: TokenIds) -> Logits:
    decoder.prefill(slot, prompt[:_CHUNK], 0)
    return decoder.prefill(slot, prompt[_CHUNK:], _CHUNK).copy()


def _greedy(logits: Logits) -> int:
    return int(np.argmax(logits))


def _difference(expected: Sequence[Sequence[Logits]], found: Sequence[Sequence[Logits]]) -> float:
    """Return the largest difference of logits of the same sequence at the same step, for the steps that both have."""
    pairs = [pair for one, other in zip(expected, found, strict=True) for pair in zip(one, other, strict=False)]
    different = [float(np.nanmax(np.abs(a - b))) for a, b in pairs if not np.array_equal(a, b, equal_nan=True)]
    return max(different, default=0.0)


def warm_up(decoder: Decoder, chunk_tokens: int, clock: Callable[[], float]) -> RunSeeds:
    """Run and time prefill chunks, and decode steps of growing numbers of sequences.

    Raises `ModelLoadError` if a run fails.
    """
    chunk = min(chunk_tokens, decoder.context_length - 1)
    chunks = [(tokens, _timed_chunk(decoder, tokens, clock)) for tokens in sorted({1 + chunk // 4, chunk})]
    steps = [(rows, _timed_step(decoder, rows, chunk, clock)) for rows in _step_sizes(decoder.slots)]
    _log.debug("a chunk of %d tokens takes %.2g s, a step of %d sequences %.2g s", *chunks[-1], *steps[-1])
    return RunSeeds(steps, chunks)


def _step_sizes(most: int) -> list[int]:
    return [*(2**exponent for exponent in range(most.bit_length()) if 2**exponent < most), most]


def _timed_chunk(decoder: Decoder, tokens: int, clock: Callable[[], float]) -> float:
    ids = np.zeros(tokens, np.int64)
    seconds = _shortest(lambda: decoder.prefill(0, ids, 0), clock, f"{tokens} tokens of a prompt")
    decoder.release(0, tokens)
    return seconds


def _timed_step(decoder: Decoder, rows: int, past: int, clock: Callable[[], float]) -> float:
    """Return the time of a step after ``past`` tokens, which do not run first: their values do not matter for it."""
    seconds = _shortest(lambda: decoder.decode([0] * rows, [past] * rows), clock, f"{rows} sequences at once")
    for slot in range(rows):
        decoder.release(slot, past + 1)
    return seconds


def _shortest(run: Callable[[], object], clock: Callable[[], float], what: str) -> float:
    """Return the shortest of several times of ``run``, as the first one may be slow for other reasons."""
    shortest_s = math.inf
    for _ in range(1 + _REPEATS):
        started_at = clock()
        try:
            run()
        except RunFailedError as error:
            raise ModelLoadError(f"the model cannot run {what}: {runtime_message(error.cause)}") from error.cause
        run_s = clock() - started_at
        if shortest_s < math.inf and run_s > _REPEATED_S:
            return min(shortest_s, run_s)
        shortest_s = min(shortest_s, run_s)
    return shortest_s

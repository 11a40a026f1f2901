"""Runs a language model before its first request: are sequences what they are alone, and what do its runs take?"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from inferd.generation.ports import Decoder, Logits
from inferd.generation.request import TokenIds
from inferd.runtime.batch_axes.verdict import Standing, Verdict
from inferd.runtime.errors import ModelLoadError, RunFailedError, runtime_message

_log = logging.getLogger(__name__)

#: Lengths of the prompts that are tried, each in two chunks, and the tokens that each generates.
_PROMPTS = (5, 9, 3, 6)
_CHUNK = 2
_STEPS = 4
#: The first sequence leaves before this step, so that the last one takes its slot.
_LEAVES_BEFORE = 2

#: From this share of the span of the logits on, sequences disturb each other; below, it is rounding.
_MOST_ROUNDING = 0.1

#: Runs up to this are done again to be timed, at most so many times.
_REPEATED_S = 0.05
_REPEATS = 2


@dataclass(frozen=True, slots=True)
class RunSeeds:
    """What runs took: steps by sequences, chunks of prompts by tokens; seconds."""

    steps: Sequence[tuple[int, float]] = field(default_factory=tuple)
    chunks: Sequence[tuple[int, float]] = field(default_factory=tuple)


NO_SEEDS = RunSeeds()


def verify(decoder: Decoder) -> Verdict:
    """Return whether sequences that run beside each other get the logits that they get alone, bit for bit.

    They join and leave meanwhile, and move between slots. Raises `ModelLoadError` if they disturb each other, or if the
    model does not run.
    """
    try:
        return _verdict(decoder)
    except RunFailedError as error:
        # The text may be quoted, because the prompts are not a caller's.
        raise ModelLoadError(f"the model does not run: {runtime_message(error.cause)}") from error.cause


def _verdict(decoder: Decoder) -> Verdict:
    prompts = _prompts(decoder)
    alone = [_alone(decoder, prompt) for prompt in prompts]
    repeated = [_alone(decoder, prompt) for prompt in prompts[:1]]
    if difference := _difference(alone[:1], repeated):
        reason = f"its logits differ by up to {difference:.2g} from run to run"
        return Verdict(standing=Standing.UNPROVEN, reason=reason)
    together = _together(decoder, prompts)
    difference = _difference(alone, together)
    if not difference:
        return Verdict(standing=Standing.PROVEN)
    reason = f"beside others, the logits of a sequence differ by up to {difference:.2g} from those alone"
    span = max(float(np.ptp(each)) for logits in alone for each in logits)
    if difference > _MOST_ROUNDING * span:
        raise ModelLoadError(f"{reason}, so sequences disturb each other")
    return Verdict(standing=Standing.CONTRADICTED, reason=reason)


def _prompts(decoder: Decoder) -> list[TokenIds]:
    random = np.random.default_rng(0)
    count = min(decoder.slots, len(_PROMPTS))
    return [random.integers(decoder.vocabulary_size, size=size) for size in _PROMPTS[:count]]


def _alone(decoder: Decoder, prompt: TokenIds) -> list[Logits]:
    """Return the logits after the prompt, and after each token that is most likely then."""
    found = [_prefill(decoder, 0, prompt)]
    for step in range(_STEPS):
        found.append(decoder.decode([_choice(found[-1])], [len(prompt) + step])[0].copy())
    decoder.release(0, len(prompt) + _STEPS)
    return found


def _together(decoder: Decoder, prompts: Sequence[TokenIds]) -> list[list[Logits]]:
    """Return the same for ``prompts`` beside each other; less of the first, which leaves early."""
    found = [[_prefill(decoder, slot, prompt)] for slot, prompt in enumerate(prompts)]
    at = list(range(len(prompts)))
    for step in range(_STEPS):
        if step == _LEAVES_BEFORE and len(at) > 1:
            last = at.pop()
            decoder.release(0, len(prompts[at[0]]) + step)
            decoder.move(len(at), 0, len(prompts[last]) + step)
            decoder.release(len(at), len(prompts[last]) + step)
            at[0] = last
        logits = decoder.decode([_choice(found[n][-1]) for n in at], [len(prompts[n]) + step for n in at])
        for row, n in enumerate(at):
            found[n].append(logits[row].copy())
    for slot, n in enumerate(at):
        decoder.release(slot, len(prompts[n]) + _STEPS)
    return found


def _prefill(decoder: Decoder, slot: int, prompt: TokenIds) -> Logits:
    decoder.prefill(slot, prompt[:_CHUNK], 0)
    return decoder.prefill(slot, prompt[_CHUNK:], _CHUNK).copy()


def _choice(logits: Logits) -> int:
    return int(np.argmax(logits))


def _difference(expected: Sequence[Sequence[Logits]], found: Sequence[Sequence[Logits]]) -> float:
    """Return the largest difference of logits at the same place, as far as there are both."""
    pairs = [pair for one, other in zip(expected, found, strict=True) for pair in zip(one, other, strict=False)]
    different = [float(np.nanmax(np.abs(a - b))) for a, b in pairs if not np.array_equal(a, b, equal_nan=True)]
    return max(different, default=0.0)


def warm_up(decoder: Decoder, chunk_tokens: int, clock: Callable[[], float]) -> RunSeeds:
    """Run chunks of prompts and steps of growing numbers of sequences. Raises `ModelLoadError` if a run fails.

    Returns what they took.
    """
    chunk = min(chunk_tokens, decoder.context_length - 1)
    chunks = [(tokens, _timed_chunk(decoder, tokens, clock)) for tokens in sorted({1 + chunk // 4, chunk})]
    steps = [(rows, _timed_step(decoder, rows, chunk, clock)) for rows in _sizes(decoder.slots)]
    _log.debug("a chunk of %d tokens takes %.2g s, a step of %d sequences %.2g s", *chunks[-1], *steps[-1])
    return RunSeeds(steps, chunks)


def _sizes(most: int) -> list[int]:
    return [*(2**exponent for exponent in range(most.bit_length()) if 2**exponent < most), most]


def _timed_chunk(decoder: Decoder, tokens: int, clock: Callable[[], float]) -> float:
    ids = np.zeros(tokens, np.int64)
    seconds = _shortest(lambda: decoder.prefill(0, ids, 0), clock, f"{tokens} tokens of a prompt")
    decoder.release(0, tokens)
    return seconds


def _timed_step(decoder: Decoder, rows: int, past: int, clock: Callable[[], float]) -> float:
    """Return what a step takes over ``past`` tokens, whose keys and values do not matter for that."""
    seconds = _shortest(lambda: decoder.decode([0] * rows, [past] * rows), clock, f"{rows} sequences at once")
    for slot in range(rows):
        decoder.release(slot, past + 1)
    return seconds


def _shortest(run: Callable[[], object], clock: Callable[[], float], what: str) -> float:
    """Return how long ``run`` takes, the shortest of several times; the first one may be slow for other reasons."""
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

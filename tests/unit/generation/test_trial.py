"""Trial runs of a language model: verdicts about models whose sequences disturb each other, and run times."""

from collections.abc import Sequence

import numpy as np
import pytest

from inferd.generation.trial import verify, warm_up
from inferd.runtime.batch_axes.verdict import Standing
from inferd.runtime.errors import ModelLoadError, RunFailedError
from tests.fakes import FakeClock


class TrialDecoder:
    """A decoder whose logits follow from all tokens in the slot, plus ``mixing`` for each other row of the run."""

    context_length = 64
    vocabulary_size = 32
    cache_bytes_per_token = 8

    def __init__(self, slots: int = 4, mixing: float = 0.0) -> None:
        self.slots = slots
        self.cache: list[list[int]] = [[] for _ in range(slots)]
        self.runs: list[tuple[str, int]] = []
        self.clock = FakeClock()
        self.moves = True
        self.fails_from = 1000
        self._mixing = mixing

    def prefill(self, slot: int, ids, past: int):
        self._ran("prefill", len(ids))
        del self.cache[slot][past:]
        self.cache[slot] += [int(token) for token in ids]
        return self._logits(slot)

    def decode(self, ids: Sequence[int], past: Sequence[int]):
        self._ran("decode", len(ids))
        for slot, (token, length) in enumerate(zip(ids, past, strict=True)):
            del self.cache[slot][length:]
            self.cache[slot].append(token)
        rows = np.stack([self._logits(slot) for slot in range(len(ids))])
        return rows + self._mixing * (len(ids) - 1) if self._mixing else rows

    def move(self, source: int, target: int, tokens: int) -> None:
        if self.moves:
            self.cache[target] = self.cache[source][:tokens]

    def release(self, slot: int, tokens: int, kept: int = 0) -> None:
        self.cache[slot] = self.cache[slot][:kept]

    def _ran(self, kind: str, size: int) -> None:
        if size >= self.fails_from:
            raise RunFailedError(RuntimeError("out of something"))
        self.runs.append((kind, size))
        self.clock.advance(0.01 * size if kind == "decode" else 0.001 * size)

    def _logits(self, slot: int):
        random = np.random.default_rng([*self.cache[slot], 1])
        return random.standard_normal(self.vocabulary_size).astype(np.float32)


def test_proves_a_model_whose_sequences_are_independent():
    """All slots are empty afterwards."""
    decoder = TrialDecoder()
    assert verify(decoder).standing is Standing.PROVEN
    assert decoder.cache == [[]] * 4
    assert ("decode", 4) in decoder.runs
    assert ("decode", 3) in decoder.runs


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_proves_a_model_with_few_slots(slots):
    """The trial uses as many sequences as there are slots."""
    assert verify(TrialDecoder(slots)).standing is Standing.PROVEN


def test_rounding_contradicts_and_is_served():
    """The verdict has the size of the difference."""
    verdict = verify(TrialDecoder(mixing=1e-4))
    assert verdict.standing is Standing.CONTRADICTED
    assert verdict.reason == "beside others, the logits of a sequence differ by up to 0.0003 from those alone"


def test_refuses_a_model_whose_sequences_disturb_each_other():
    """A large difference is no rounding."""
    with pytest.raises(ModelLoadError, match=r"differ by up to 6 from those alone, so sequences disturb each other"):
        verify(TrialDecoder(mixing=2.0))


def test_refuses_a_model_that_loses_moved_sequences():
    """The trial moves a sequence to another slot, and compares its logits afterwards."""
    decoder = TrialDecoder()
    decoder.moves = False
    with pytest.raises(ModelLoadError, match="so sequences disturb each other"):
        verify(decoder)


def test_model_that_differs_from_run_to_run_is_unproven():
    """If a repeated run gives other logits, a comparison proves nothing."""
    decoder, count = TrialDecoder(), iter(range(1000))
    exact = decoder.prefill
    decoder.prefill = lambda *run: exact(*run) + np.float32(1e-3 * next(count))
    verdict = verify(decoder)
    assert verdict.standing is Standing.UNPROVEN
    assert verdict.reason.endswith("from run to run")


def test_failing_runs_are_load_errors_with_their_cause():
    """The cause may be quoted, as trial prompts have no data of callers."""
    decoder = TrialDecoder()
    decoder.fails_from = 3
    with pytest.raises(ModelLoadError, match=r"^the model does not run: out of something$"):
        verify(decoder)
    with pytest.raises(ModelLoadError, match=r"^the model cannot run 5 tokens of a prompt: out of something$"):
        warm_up(decoder, 16, decoder.clock)


def test_warm_up_measures_chunks_and_steps():
    """Steps of powers of two sequences, and of all slots; chunks of about a quarter, and of all of the chunk size."""
    decoder = TrialDecoder(slots=6)
    seeds = warm_up(decoder, 16, decoder.clock)
    assert seeds.chunks == [(5, pytest.approx(0.005)), (16, pytest.approx(0.016))]
    assert seeds.steps == [(rows, pytest.approx(0.01 * rows)) for rows in (1, 2, 4, 6)]
    assert decoder.cache == [[]] * 6


def test_warm_up_chunks_fit_into_the_context():
    """Chunks larger than the context are measured with the longest prompt."""
    decoder = TrialDecoder(slots=1)
    assert [tokens for tokens, _ in warm_up(decoder, 512, decoder.clock).chunks] == [16, 63]


def test_long_runs_are_repeated_once_and_short_ones_twice():
    """The first run may be slow for other reasons, so each is repeated."""
    decoder = TrialDecoder(slots=8)
    warm_up(decoder, 16, decoder.clock)
    assert decoder.runs.count(("decode", 8)) == 2
    assert decoder.runs.count(("decode", 1)) == 3

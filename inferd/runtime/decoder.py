"""A loaded language model: an ONNX Runtime session and the KV cache of its sequences."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from inferd.runtime.decoder_cache import SlotCache
from inferd.runtime.decoder_graph import DecoderForm
from inferd.runtime.decoder_runner import Integers, SlotRunner
from inferd.runtime.errors import RunFailedError, SessionClosedError
from inferd.runtime.genai_config import GenaiConfig
from inferd.runtime.providers import on_accelerator
from inferd.runtime.runners import OrtObject, RunStop
from inferd.runtime.signature import Logits


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderSizes:
    """Sequences and tokens of each that the cache holds, and the length of a row of logits."""

    slots: int
    context_length: int
    vocabulary_size: int


class OnnxDecoder:
    """An `inferd.generation.ports.Decoder` on ONNX Runtime.

    `close` may be called by any thread: a run in progress has a reference to the runner, which is freed after it. Later
    runs raise `SessionClosedError`.
    """

    def __init__(
        self,
        *,
        runner: SlotRunner,
        cache: SlotCache,
        form: DecoderForm,
        sizes: DecoderSizes,
        providers: tuple[str, ...],
    ) -> None:
        self._runner: SlotRunner | None = runner
        self._scores_prompts = runner.can_run_every
        self._cache: SlotCache | None = cache
        self._cache_bytes = cache.nbytes
        self._form = form
        self._sizes = sizes
        self._providers = providers
        self._running: RunStop | None = None

    @property
    def slots(self) -> int:
        """See `Decoder.slots`."""
        return self._sizes.slots

    @property
    def context_length(self) -> int:
        """See `Decoder.context_length`."""
        return self._sizes.context_length

    @property
    def vocabulary_size(self) -> int:
        """See `Decoder.vocabulary_size`."""
        return self._sizes.vocabulary_size

    @property
    def scores_prompts(self) -> bool:
        """See `Decoder.scores_prompts`."""
        return self._scores_prompts

    @property
    def cache_bytes_per_token(self) -> int:
        """See `Decoder.cache_bytes_per_token`."""
        return self._form.cache_bytes_per_token

    @property
    def cache_bytes(self) -> int:
        """Bytes of all slots; on the host these are addresses, of which only tokens in use take memory."""
        return self._cache_bytes

    @property
    def defaults(self) -> GenaiConfig:
        """End tokens, context length and default sampling, from the files beside the model."""
        return self._form.config

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers in use, the preferred one first."""
        return self._providers

    @property
    def on_accelerator(self) -> bool:
        """True if runs wait for a device, so that the CPU time of the thread does not measure them."""
        return on_accelerator(self._providers)

    def prefill(self, slot: int, ids: Integers, past: int) -> Logits:
        """See `Decoder.prefill`."""
        logits: Logits = self._run(slot, np.asarray(ids)[None], np.array([past]))[0]
        return logits

    def score(self, slot: int, ids: Integers, past: int) -> Logits:
        """See `Decoder.score`."""
        return self._run_stoppable(
            lambda runner, options: runner.run_every(slot, np.asarray(ids)[None], np.array([past]), options)
        )

    def decode(self, ids: Sequence[int], past: Sequence[int]) -> Logits:
        """See `Decoder.decode`; slots run one by one if the graph mixes rows."""
        tokens, lengths = np.array(ids)[:, None], np.array(past)
        if not self._form.mixes_rows:
            return self._run(0, tokens, lengths)
        rows = np.empty((len(tokens), self.vocabulary_size), np.float32)
        for row in range(len(tokens)):
            rows[row] = self._run(row, tokens[row : row + 1], lengths[row : row + 1])[0]
        return rows

    def stop_run(self) -> None:
        """See `Decoder.stop_run`."""
        running = self._running
        if running is not None:
            running.stop()

    def move(self, source: int, target: int, tokens: int) -> None:
        """See `Decoder.move`."""
        if self._cache is not None:
            self._cache.move(source, target, tokens)

    def release(self, slot: int, tokens: int, kept: int = 0) -> None:
        """See `Decoder.release`."""
        if self._cache is not None:
            self._cache.release(slot, tokens, kept)

    def close(self) -> None:
        """Release the model and its cache, whose memory is freed once no run is in progress."""
        self._runner = None
        self._cache = None

    def _run(self, slot: int, ids: Integers, past: Integers) -> Logits:
        return self._run_stoppable(lambda runner, options: runner.run(slot, ids, past, options))

    def _run_stoppable(self, run: Callable[[SlotRunner, OrtObject], Logits]) -> Logits:
        runner = self._runner
        if runner is None:
            raise SessionClosedError
        stop = self._running = RunStop()
        try:
            return run(runner, stop.options)
        except Exception as error:  # noqa: BLE001  (the text of any error may quote inputs)
            # Without the cause, whose text would be logged as well; its traceback may be logged.
            raise RunFailedError(error).with_traceback(error.__traceback__) from None
        finally:
            self._running = None

"""A loaded language model: an ONNX Runtime session and the cache of its sequences."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from inferd.runtime.decoder_cache import SlotCache
from inferd.runtime.decoder_graph import DecoderForm
from inferd.runtime.decoder_runner import Integers, Logits, SlotRunner
from inferd.runtime.errors import RunFailedError, SessionClosedError
from inferd.runtime.genai_config import GenaiConfig
from inferd.runtime.providers import on_accelerator
from inferd.runtime.runners import OrtObject, RunStop


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderSizes:
    """How many sequences of how many tokens the cache holds, and the length of a row of logits."""

    slots: int
    context_length: int
    vocabulary_size: int


class OnnxDecoder:
    """Implements `inferd.generation.ports.Decoder`.

    Used by one thread, except for `stop_run` and `close`. A run in progress holds a reference to the runner, so `close`
    does not free it; runs that start afterwards raise `SessionClosedError`.
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
        self._scores_prompts = runner.gives_every
        self._cache: SlotCache | None = cache
        self._cache_bytes = cache.nbytes
        self._form = form
        self._sizes = sizes
        self._providers = providers
        self._running: RunStop | None = None

    @property
    def slots(self) -> int:
        """The number of sequences that the cache holds."""
        return self._sizes.slots

    @property
    def context_length(self) -> int:
        """The maximum number of tokens of one sequence."""
        return self._sizes.context_length

    @property
    def vocabulary_size(self) -> int:
        """The length of a row of logits."""
        return self._sizes.vocabulary_size

    @property
    def scores_prompts(self) -> bool:
        """Whether `score` is possible."""
        return self._scores_prompts

    @property
    def cache_bytes_per_token(self) -> int:
        """Bytes of the cache that one token takes."""
        return self._form.cache_bytes_per_token

    @property
    def cache_bytes(self) -> int:
        """Bytes that the cache has addresses for; on the host, only tokens in use take memory."""
        return self._cache_bytes

    @property
    def defaults(self) -> GenaiConfig:
        """What the files beside the model say of end tokens, context length and sampling."""
        return self._form.config

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers in use, the preferred one first."""
        return self._providers

    @property
    def on_accelerator(self) -> bool:
        """Whether runs wait for a device, so that thread CPU time does not measure them."""
        return on_accelerator(self._providers)

    def prefill(self, slot: int, ids: Integers, past: int) -> Logits:
        """Add ``ids`` to the ``past`` tokens of ``slot``; return the logits behind the last one, [vocabulary_size].

        They are valid until the next run. Raises `RunFailedError`.
        """
        logits: Logits = self._run(slot, np.asarray(ids)[None], np.array([past]))[0]
        return logits

    def score(self, slot: int, ids: Integers, past: int) -> Logits:
        """Do the same; return the logits behind each of ``ids``, [len(ids), vocabulary_size]."""
        return self._stoppable(
            lambda runner, options: runner.run_every(slot, np.asarray(ids)[None], np.array([past]), options)
        )

    def decode(self, ids: Sequence[int], past: Sequence[int]) -> Logits:
        """Add one token to each of the slots 0 to len(ids)-1; return their logits, [len(ids), vocabulary_size].

        They are valid until the next run. Row n is bit for bit what it would be alone. Raises `RunFailedError`.
        """
        tokens, lengths = np.array(ids)[:, None], np.array(past)
        if not self._form.mixes_rows:
            return self._run(0, tokens, lengths)
        rows = np.empty((len(tokens), self.vocabulary_size), np.float32)
        for row in range(len(tokens)):
            rows[row] = self._run(row, tokens[row : row + 1], lengths[row : row + 1])[0]
        return rows

    def stop_run(self) -> None:
        """Have the run in progress end early with `RunFailedError`; no effect without one. Called by any thread."""
        running = self._running
        if running is not None:
            running.stop()

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copy the first ``tokens`` of slot ``source`` over slot ``target``."""
        if self._cache is not None:
            self._cache.move(source, target, tokens)

    def release(self, slot: int, tokens: int, kept: int = 0) -> None:
        """Give the memory of the ``tokens`` that slot ``slot`` held back to the system, but for the first ``kept``."""
        if self._cache is not None:
            self._cache.release(slot, tokens, kept)

    def close(self) -> None:
        """Release the model and its cache; their memory is freed when no run is in progress."""
        self._runner = None
        self._cache = None

    def _run(self, slot: int, ids: Integers, past: Integers) -> Logits:
        return self._stoppable(lambda runner, options: runner.run(slot, ids, past, options))

    def _stoppable(self, run: Callable[[SlotRunner, OrtObject], Logits]) -> Logits:
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

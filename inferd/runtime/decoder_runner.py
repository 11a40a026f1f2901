"""Run a language model on slots of its cache, which ONNX Runtime reads and writes in place."""

from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from inferd.runtime.decoder_cache import SlotCache
from inferd.runtime.decoder_graph import LOGITS_TO_KEEP, DecoderForm
from inferd.runtime.decoder_rows import CHOSEN_TOKENS
from inferd.runtime.runners import OrtObject
from inferd.runtime.signature import Array

Logits = NDArray[np.float32]
#: Token ids [sequences,tokens], and numbers of tokens [sequences].
Integers = NDArray[np.integer]

_LEAST_MASK = 64

#: Bindings that are kept: those of prompts and of the usual numbers of rows.
_MOST_BINDINGS = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class LogitsForm:
    """Form of the logits that a run returns.

    Flat: [sequences,``vocabulary_size``]; else [sequences,tokens,``vocabulary_size``].
    ``of_last_token``: of the last token only, so that there is one.
    """

    vocabulary_size: int
    element: np.dtype[np.generic]
    is_flat: bool
    of_last_token: bool


class SlotRunner:
    """Runs of a session with its cache bound in place; used by one thread.

    A binding of slots keeps their caches bound, which are dozens of tensors; the few others are bound for each run,
    after they are filled, because values for a device are copied when they are bound.
    """

    def __init__(
        self, session: OrtObject, form: DecoderForm, cache: SlotCache, logits: LogitsForm, context_length: int
    ) -> None:
        self._session = session
        self._form = form
        self._cache = cache
        self._logits_form = logits
        self._context_length = context_length
        self._has_chosen_tokens = CHOSEN_TOKENS in {value.name for value in session.get_inputs()}
        self._logits = np.empty(0, logits.element)
        self._columns = np.empty(0, form.integer)
        self._bindings: dict[tuple[int, int], OrtObject] = {}

    @property
    def gives_every(self) -> bool:
        """Whether `run_every` is possible: the graph computes the logits of other tokens than the last one."""
        return self._has_chosen_tokens or self._form.has_logits_to_keep or not self._logits_form.of_last_token

    def run(self, slot: int, ids: Integers, past: Integers, options: OrtObject) -> Logits:
        """Add ``ids`` [rows,tokens] to the ``past`` tokens of the slots from ``slot`` on; return [rows,vocabulary].

        These are the logits behind the last token, valid until the next run. Raises whatever ONNX Runtime raises.
        """
        logits = self._output(*ids.shape)
        self._run(slot, ids, past, options, logits)
        last = logits if self._logits_form.is_flat else logits[:, -1]
        return last.astype(np.float32, copy=False)

    def run_every(self, slot: int, ids: Integers, past: Integers, options: OrtObject) -> Logits:
        """Do the same for one row; return the logits behind each of its tokens, [tokens,vocabulary]."""
        form = self._logits_form
        # Not kept, as it is much more than what other runs need.
        logits = np.empty((1, ids.shape[1], form.vocabulary_size), form.element)
        self._run(slot, ids, past, options, logits)
        every: Logits = logits[0].astype(np.float32, copy=False)
        return every

    def _run(self, slot: int, ids: Integers, past: Integers, options: OrtObject, logits: Array) -> None:
        """Run on ``ids``, and write ``logits``: as many of the last tokens as these have."""
        binding = self._binding(slot, len(ids))
        # These must live until the run ends.
        feeds = self._feeds(ids, past) | self._kept(1 if logits.ndim == 2 else logits.shape[1])
        for name, array in feeds.items():
            _bind(binding, name, array)
        binding.bind_output(
            self._form.config.names.logits, "cpu", 0, logits.dtype.type, logits.shape, logits.ctypes.data
        )
        self._session.run_with_iobinding(binding, options)

    def _binding(self, slot: int, rows: int) -> OrtObject:
        binding = self._bindings.get((slot, rows))
        if binding is None:
            if len(self._bindings) >= _MOST_BINDINGS:
                self._bindings.clear()
            binding = self._session.io_binding()
            self._cache.bind(binding, slot, rows)
            self._bindings[slot, rows] = binding
        return binding

    def _feeds(self, ids: Integers, past: Integers) -> dict[str, Array]:
        """Return the inputs besides the caches."""
        names, tokens = self._form.config.names, ids.shape[1]
        totals = past + tokens
        columns = self._first_columns(self._mask_length(int(past.max()), tokens))
        # The number of ones in a row is that of its tokens, including the new ones.
        mask = (columns < totals[:, None]).astype(self._form.integer)
        feeds: dict[str, Array] = {
            names.input_ids: np.ascontiguousarray(ids, self._form.integer),
            names.attention_mask: mask,
        }
        if self._form.has_position_ids:
            feeds[names.position_ids] = (past[:, None] + columns[:tokens]).astype(self._form.integer)
        return feeds

    def _kept(self, tokens: int) -> dict[str, Array]:
        """Return the inputs that have the logits of the last ``tokens`` computed, where the graph has some."""
        feeds: dict[str, Array] = {}
        if self._has_chosen_tokens:
            feeds[CHOSEN_TOKENS] = np.arange(-tokens, 0, dtype=np.int64)
        if self._form.has_logits_to_keep:
            feeds[LOGITS_TO_KEEP] = np.array(tokens, np.int64)
        return feeds

    def _mask_length(self, past: int, tokens: int) -> int:
        """Return the length of the attention mask: of prompts from their beginning, where it counts, the exact one.

        Others only have to be long enough. As ONNX Runtime keeps a plan of the memory of runs for each shape of the
        inputs, there are few.
        """
        if not past:
            return tokens
        return min(max(_LEAST_MASK, 1 << (past + tokens - 1).bit_length()), self._context_length)

    def _first_columns(self, count: int) -> Integers:
        if len(self._columns) < count:
            self._columns = np.arange(count, dtype=self._form.integer)
        return self._columns[:count]

    def _output(self, rows: int, tokens: int) -> Array:
        """Return memory for the logits of a run."""
        form = self._logits_form
        kept = 1 if form.of_last_token else tokens
        count = rows * kept * form.vocabulary_size
        if len(self._logits) < count:
            self._logits = np.empty(count, form.element)
        shape = (rows, form.vocabulary_size) if form.is_flat else (rows, kept, form.vocabulary_size)
        return self._logits[:count].reshape(shape)


def _bind(binding: OrtObject, name: str, array: Array) -> None:
    binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def logits_of(session: OrtObject, form: DecoderForm, tokens: int, chosen: list[int] | None) -> Array:
    """Run ``session`` once without a cache on the first ``tokens`` of the vocabulary, and return its logits.

    ``chosen`` are the tokens that get logits, if the session has that input. Raises whatever ONNX Runtime raises.
    """
    names = form.config.names
    feeds: dict[str, Array] = {
        names.input_ids: np.arange(tokens, dtype=form.integer)[None],
        names.attention_mask: np.ones((1, tokens), form.integer),
    }
    if form.has_position_ids:
        feeds[names.position_ids] = feeds[names.input_ids]
    if form.has_logits_to_keep:
        feeds[LOGITS_TO_KEEP] = np.array(1, np.int64)
    if chosen is not None:
        feeds[CHOSEN_TOKENS] = np.array(chosen, np.int64)
    for cache in form.caches:
        feeds[cache.past] = np.zeros((1, cache.heads, 0, cache.size), form.element)
    options = onnxruntime.RunOptions()
    return np.asarray(session.run([names.logits], feeds, options)[0])

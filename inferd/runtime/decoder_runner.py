"""Run a language model on slots of its KV cache, which ONNX Runtime reads and writes in place."""

from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from inferd.runtime.decoder_cache import SlotCache
from inferd.runtime.decoder_graph import LOGITS_TO_KEEP, DecoderForm
from inferd.runtime.decoder_pruning import CHOSEN_TOKENS
from inferd.runtime.runners import OrtObject
from inferd.runtime.signature import Array, Logits

#: Token ids [sequences,tokens], and numbers of tokens [sequences].
Integers = NDArray[np.integer]

#: The shortest attention mask of runs with tokens in the cache.
_MIN_MASK = 64

#: Bindings to keep: one for each slot of prefill runs, and for each number of rows of decode steps.
_MAX_BINDINGS = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class LogitsForm:
    """The form of the logits that the graph returns for a prompt of several tokens.

    ``is_flat``: [sequences,``vocabulary_size``]; else [sequences,tokens,``vocabulary_size``]. ``of_last_token``: the
    graph returns those of the last token only, so that ``tokens`` is 1.
    """

    vocabulary_size: int
    element: np.dtype[np.generic]
    is_flat: bool
    of_last_token: bool


class SlotRunner:
    """Runs a session with its cache bound in place; used by one thread.

    The bindings of slots are kept, because a cache has dozens of tensors. The few other inputs are bound for each run,
    after they are filled, because inputs for a device are copied when they are bound.
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
    def can_run_every(self) -> bool:
        """True if `run_every` is supported: the graph can compute logits of other tokens than the last one."""
        return self._has_chosen_tokens or self._form.has_logits_to_keep or not self._logits_form.of_last_token

    def run(self, slot: int, ids: Integers, past: Integers, options: OrtObject) -> Logits:
        """Append ``ids`` [rows,tokens] to the ``past`` tokens [rows] of the slots from ``slot`` on.

        Return the logits of the last tokens, [rows,vocabulary_size], valid until the next run. Raises the errors of
        ONNX Runtime.
        """
        logits = self._output(*ids.shape)
        self._run(slot, ids, past, options, logits)
        last = logits if self._logits_form.is_flat else logits[:, -1]
        return last.astype(np.float32, copy=False)

    def run_every(self, slot: int, ids: Integers, past: Integers, options: OrtObject) -> Logits:
        """Do the same for one row; return the logits of each of its tokens, [tokens,vocabulary_size]."""
        form = self._logits_form
        # The memory is not kept for later runs, as it is much more than theirs.
        logits = np.empty((1, ids.shape[1], form.vocabulary_size), form.element)
        self._run(slot, ids, past, options, logits)
        every: Logits = logits[0].astype(np.float32, copy=False)
        return every

    def _run(self, slot: int, ids: Integers, past: Integers, options: OrtObject, logits: Array) -> None:
        """Run on ``ids``, and write ``logits``: for as many of the last tokens as the array has."""
        binding = self._binding(slot, len(ids))
        # These must live until the run ends.
        feeds = self._feeds(ids, past) | self._logits_feeds(1 if logits.ndim == 2 else logits.shape[1])
        for name, array in feeds.items():
            _bind(binding, name, array)
        binding.bind_output(
            self._form.config.names.logits, "cpu", 0, logits.dtype.type, logits.shape, logits.ctypes.data
        )
        self._session.run_with_iobinding(binding, options)

    def _binding(self, slot: int, rows: int) -> OrtObject:
        binding = self._bindings.get((slot, rows))
        if binding is None:
            if len(self._bindings) >= _MAX_BINDINGS:
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

    def _logits_feeds(self, tokens: int) -> dict[str, Array]:
        """Return the inputs that ask for the logits of the last ``tokens``, where the graph has such inputs."""
        feeds: dict[str, Array] = {}
        if self._has_chosen_tokens:
            feeds[CHOSEN_TOKENS] = np.arange(-tokens, 0, dtype=np.int64)
        if self._form.has_logits_to_keep:
            feeds[LOGITS_TO_KEEP] = np.array(tokens, np.int64)
        return feeds

    def _mask_length(self, past: int, tokens: int) -> int:
        """Return the length of the attention mask.

        It must be exact without ``past``; otherwise it only has to be long enough. Powers of two make few different
        lengths, as ONNX Runtime keeps a memory plan for each shape of the inputs.
        """
        if not past:
            return tokens
        return min(max(_MIN_MASK, 1 << (past + tokens - 1).bit_length()), self._context_length)

    def _first_columns(self, count: int) -> Integers:
        if len(self._columns) < count:
            self._columns = np.arange(count, dtype=self._form.integer)
        return self._columns[:count]

    def _output(self, rows: int, tokens: int) -> Array:
        """Return reused memory for the logits of a run."""
        form = self._logits_form
        with_logits = 1 if form.of_last_token else tokens
        count = rows * with_logits * form.vocabulary_size
        if len(self._logits) < count:
            self._logits = np.empty(count, form.element)
        shape = (rows, form.vocabulary_size) if form.is_flat else (rows, with_logits, form.vocabulary_size)
        return self._logits[:count].reshape(shape)


def _bind(binding: OrtObject, name: str, array: Array) -> None:
    binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def logits_of(session: OrtObject, form: DecoderForm, tokens: int, chosen: list[int] | None) -> Array:
    """Run ``session`` once with an empty cache on the first ``tokens`` ids of the vocabulary, and return its logits.

    ``chosen`` is the input `CHOSEN_TOKENS`, if the session has it. Raises the errors of ONNX Runtime.
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

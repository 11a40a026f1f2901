"""Shadow traffic: copy a share of a model's requests to another version, and compare the answers.

Copies are scavengers: they run when nothing else waits, and are the first to be evicted. The original request does not
wait for its copy, and does not change. The memory for comparisons is bounded; requests beyond that are not copied.
"""

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from queue import SimpleQueue

from inferd.batching.request import InferenceRequest, InferenceResult, Outcome, Reply
from inferd.config.routing import ShadowSettings
from inferd.errors import InvalidInputError, OverloadedError
from inferd.models.states import ModelState
from inferd.models.version import ModelVersion
from inferd.runtime.batch_axes.row_comparison import difference
from inferd.runtime.signature import Array

_log = logging.getLogger(__name__)

#: Outcomes of a sampled request: both answers are equal or differ, the shadow's run failed, its queue rejected the
#: copy, its version does not take such a request, or the limits below were reached.
OUTCOMES = ("equal", "different", "failed", "rejected", "incompatible", "skipped")

#: Copies that wait for their answers or comparison, and the bytes of their inputs and of the answers to the originals.
_MOST_OPEN = 64
_MOST_BYTES = 64 * 2**20

#: A difference is logged at most this often for each shadow.
_LOG_EVERY_S = 60.0


class ShadowCounts:
    """Numbers of copied requests by outcome, of all shadows; by model and version of the shadow. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], Counter[str]] = {}

    def add(self, model: str, version: str, outcome: str) -> None:
        """Count a request."""
        with self._lock:
            self._counts.setdefault((model, version), Counter())[outcome] += 1

    def read(self) -> Mapping[tuple[str, str], Mapping[str, int]]:
        """Return the counts so far."""
        with self._lock:
            return {labels: {name: counts[name] for name in OUTCOMES} for labels, counts in self._counts.items()}


class _Comparison:
    """The two outcomes of one request, of which either may come first, or never.

    ``nbytes`` count among those of open copies while ``is_open``; both belong to the shadow.
    """

    __slots__ = ("_lock", "_on_both", "copied", "is_open", "nbytes", "original")

    def __init__(self, on_both: Callable[["_Comparison"], None], nbytes: int) -> None:
        self._on_both = on_both
        self.nbytes = nbytes
        self.is_open = True
        self._lock = threading.Lock()
        self.original: Outcome | None = None
        self.copied: Outcome | None = None

    def original_ended(self, outcome: Outcome) -> None:
        with self._lock:
            self.original = outcome
            both = self.copied is not None
        if both:
            self._on_both(self)

    def copy_ended(self, outcome: Outcome) -> None:
        with self._lock:
            self.copied = outcome
            both = self.original is not None
        if both:
            self._on_both(self)


class Shadow:
    """Copies requests to ``target``. `copy` is called by the poll thread before the originals are submitted.

    ``compare`` runs a function in another thread, soon, and returns False if too many wait already.
    """

    def __init__(
        self,
        target: ModelVersion,
        settings: ShadowSettings,
        *,
        counts: ShadowCounts,
        compare: Callable[[Callable[[], None]], bool],
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.target = target
        self.settings = settings
        self._counts = counts
        self._compare = compare
        self._draw = draw
        self._clock = clock
        self._lock = threading.Lock()
        self._open = 0
        self._open_bytes = 0
        self._logged_at = -_LOG_EVERY_S

    def copy(self, requests: Sequence[InferenceRequest]) -> None:
        """Copy a random sample of ``requests``."""
        if self.target.state is not ModelState.READY:
            return
        for request in requests:
            if self._draw() < self.settings.share:
                self._copy(request)

    def _copy(self, request: InferenceRequest) -> None:
        nbytes = request.nbytes
        with self._lock:
            fits = self._open < _MOST_OPEN and self._open_bytes + nbytes <= _MOST_BYTES
            if fits:
                self._open += 1
                self._open_bytes += nbytes
        if not fits:
            self._count("skipped")
            return
        comparison = _Comparison(self._both_ended, nbytes)
        reply = Reply(partial(self._copy_ended, comparison), None, request.reply.request_id)
        try:
            copied = self._copied(request, reply)
        except InvalidInputError:
            self._free(comparison)
            self._count("incompatible")
            return
        request.reply.observe(partial(self._original_ended, comparison))
        self.target.submit((copied,))

    def _copied(self, request: InferenceRequest, reply: Reply) -> InferenceRequest:
        """Return the request for the target. Raises `InvalidInputError`."""
        signature, queue = self.target.require_signature(), self.target.settings.queue
        checked = signature.check(request.inputs)
        timeout_s = queue.default_timeout_ms / 1000
        return InferenceRequest(
            inputs=request.inputs,
            outputs=signature.select_outputs(request.outputs),
            rows=checked.rows,
            nbytes=checked.nbytes,
            stack_key=checked.stack_key,
            reply=reply,
            received_at=request.received_at,
            deadline=request.received_at + timeout_s if timeout_s else request.deadline,
            priority=queue.priority_levels + 1,
        )

    def _original_ended(self, comparison: _Comparison, outcome: Outcome) -> None:
        if isinstance(outcome, InferenceResult) and not self._keep_answer(comparison, outcome):
            self._count("skipped")
            return
        comparison.original_ended(outcome)

    def _keep_answer(self, comparison: _Comparison, result: InferenceResult) -> bool:
        """Keep the answer to the original until the copy has ended; return False if there is no room."""
        size = sum(array.nbytes for array in result.outputs.values())
        with self._lock:
            if not comparison.is_open:
                return True
            if self._open_bytes + size > _MOST_BYTES:
                return False
            self._open_bytes += size
            comparison.nbytes += size
            return True

    def _copy_ended(self, comparison: _Comparison, outcome: Outcome) -> None:
        self._free(comparison)
        comparison.copy_ended(outcome)

    def _both_ended(self, comparison: _Comparison) -> None:
        original, copied = comparison.original, comparison.copied
        if not isinstance(original, InferenceResult):
            return  # there is nothing to compare with
        if isinstance(copied, InferenceResult):
            if not self._compare(partial(self._compare_outputs, original.outputs, copied.outputs)):
                self._count("skipped")
        else:
            self._count("rejected" if isinstance(copied, OverloadedError) else "failed")

    def _compare_outputs(self, original: Mapping[str, Array], copied: Mapping[str, Array]) -> None:
        for name, expected in original.items():
            found = difference(expected, copied[name])
            if found is not None and found.relative > self.settings.tolerance:
                self._count("different")
                self._log_difference(name, found.amount)
                return
        self._count("equal")

    def _log_difference(self, output: str, amount: str) -> None:
        now = self._clock()
        if now - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = now
            _log.warning(
                "answers of model %s version %s differ from those of the version in use: output %s %s",
                self.target.name,
                self.target.version,
                output,
                amount,
            )

    def _free(self, comparison: _Comparison) -> None:
        with self._lock:
            self._open -= 1
            self._open_bytes -= comparison.nbytes
            comparison.is_open = False

    def _count(self, outcome: str) -> None:
        self._counts.add(self.target.name, self.target.version, outcome)


class ComparisonThread:
    """A thread that compares answers, from the first comparison on. Any thread may call it."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __call__(self, work: Callable[[], None]) -> bool:
        """Run ``work`` in the thread, soon. Returns False if too much waits."""
        if self._work.qsize() >= _MOST_OPEN:
            return False
        self._work.put(work)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="model-shadow", daemon=True)
                self._thread.start()
        return True

    def stop(self) -> None:
        """End the thread; waiting answers are not compared."""
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception:  # noqa: BLE001  (further answers must be compared)
                _log.exception("answers could not be compared")

"""Count the progress of a job, and its summary."""

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

#: The phases of a job, in this order; a job that has a plan neither counts nor measures.
Phase = Literal["loading", "counting", "measuring", "running", "finishing"]

#: The rate is measured over the last half minute, sampled twice a second.
_RATE_S, _SAMPLE_S = 30.0, 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgressSnapshot:
    """The progress of this process' share of a job, including earlier runs.

    ``rows`` counts the rows of the files that are processed, answered or not. ``rows_per_s`` is the recent rate, and
    ``left_s`` the remaining time by it; None without a rate. ``total_rows`` is 0 until rows are counted.
    """

    phase: Phase
    rows: int
    total_rows: int
    errors: int
    parts: int
    total_parts: int
    elapsed_s: float
    rows_per_s: float
    left_s: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The result of a run of a job.

    ``rows`` have an answer and ``errors`` none, in all parts of this process that are done; ``resumed_rows`` and
    ``resumed_errors`` are those of earlier runs among them. Of this run, ``batches`` is the number of batches by their
    rows, and ``busy_share`` the share of ``run_s`` in which the model ran. ``has_finished`` is False if the run was
    stopped before its share was done. ``is_complete`` is True once the whole job is done; ``errors_file`` has its error
    rows then, if there are any.
    """

    rows: int
    errors: int
    resumed_rows: int
    resumed_errors: int
    parts: int
    total_parts: int
    elapsed_s: float
    run_s: float
    rows_per_s: float
    busy_share: float
    batches: Mapping[int, int]
    has_finished: bool
    is_complete: bool
    errors_file: str

    def as_json(self) -> dict[str, Any]:
        """Return the summary as a document for JSON."""
        batches = {str(rows): count for rows, count in sorted(self.batches.items())}
        return asdict(self) | {"batches": batches}


class Progress:
    """Counts the progress of a job. Threads: any."""

    def __init__(self, clock: "Callable[[], float]" = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._began = clock()
        self._phase: Phase = "loading"
        self._run_began: float | None = None
        self._totals = (0, 0)
        #: Of this run and of earlier ones: rows of the sources, error rows, and parts.
        self._done = Counter[str]()
        self._samples: deque[tuple[float, int]] = deque()
        self._batches = Counter[int]()

    def enter(self, phase: Phase) -> None:
        """Begin ``phase``."""
        with self._lock:
            self._phase = phase
            if phase == "running":
                self._run_began = self._clock()

    def resume(self, *, total_rows: int, total_parts: int, rows: int, errors: int, parts: int) -> None:
        """Set the totals, and the counts of earlier runs."""
        with self._lock:
            self._totals = (total_rows, total_parts)
            self._done = Counter(rows=rows, errors=errors, parts=parts)
            self._samples.append((self._clock(), rows))

    def add_block(self, *, rows: int, errors: int, batches: list[int]) -> None:
        """Count a block: the ``rows`` of the files that it covers, and the rows of each batch that ran."""
        with self._lock:
            self._done.update(rows=rows, errors=errors)
            self._batches.update(batches)

    def add_part(self) -> None:
        """Count a part that is written."""
        with self._lock:
            self._done["parts"] += 1

    @property
    def batches(self) -> Mapping[int, int]:
        """The number of batches by their rows, of this run."""
        with self._lock:
            return dict(self._batches)

    @property
    def elapsed_s(self) -> float:
        """The seconds since the job began."""
        return self._clock() - self._began

    @property
    def run_s(self) -> float:
        """The seconds since the phase "running" began; 0 before."""
        return 0.0 if self._run_began is None else self._clock() - self._run_began

    def snapshot(self) -> ProgressSnapshot:
        """Return the progress now."""
        with self._lock:
            rate = self._rate()
            rows = self._done["rows"]
            total_rows, total_parts = self._totals
            return ProgressSnapshot(
                phase=self._phase,
                rows=rows,
                total_rows=total_rows,
                errors=self._done["errors"],
                parts=self._done["parts"],
                total_parts=total_parts,
                elapsed_s=self.elapsed_s,
                rows_per_s=rate,
                left_s=max(total_rows - rows, 0) / rate if rate else None,
            )

    def _rate(self) -> float:
        """Return the rows per second since the oldest sample of the last half minute."""
        if not self._samples:
            return 0.0
        now, rows = self._clock(), self._done["rows"]
        if now - self._samples[-1][0] >= _SAMPLE_S:
            self._samples.append((now, rows))
        while len(self._samples) > 2 and now - self._samples[1][0] >= _RATE_S:
            self._samples.popleft()
        since, before = self._samples[0]
        return (rows - before) / (now - since) if now > since else 0.0

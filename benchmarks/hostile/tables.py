"""Tables of the results, for the console and for `docs/robustness.md`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from benchmarks.hostile.crowd_trial import CrowdTrial
from benchmarks.hostile.limits import broken, crowd_is_within_limits, line, long_run_is_within_limits, ratios
from benchmarks.hostile.long_runs import LongRun
from benchmarks.hostile.trial import Trial, Visit

_MB, _MIB = 1_000_000, 2**20
_MESSAGES = (
    "method",
    "size",
    "kinds",
    "health silent, ms",
    "of limit",
    "caller silent, ms",
    "memory, MB",
    "of limit",
    "longest silence by",
)
_CROWDS = (
    "crowd",
    "answers",
    "health silent, ms",
    "caller silent, ms",
    "RSS MiB before",
    "at most",
    "10 s after",
    "within limits",
)
_RUNS = (
    "run",
    "status",
    "after, s",
    "health silent, ms",
    "answers again after, s",
    "stopped after, s",
    "within limits",
)


@dataclass(frozen=True, slots=True)
class Found:
    """All results so far."""

    trials: list[Trial] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)
    crowds: list[CrowdTrial] = field(default_factory=list)
    long_runs: list[LongRun] = field(default_factory=list)

    @property
    def are_within_limits(self) -> bool:
        """Whether no limit was exceeded."""
        lived = all(visit.after is not None for visit in self.visits)
        within = all(map(crowd_is_within_limits, self.crowds)) and all(map(long_run_is_within_limits, self.long_runs))
        return lived and within and not broken(self.trials)


def show(found: Found, console: Console) -> None:
    """Print the tables, each trial that exceeded a limit, and the servers' resources before and after."""
    for names, rows in tables(found):
        table = Table(*names)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for trial in broken(found.trials):
        console.print(f"broke a bar: {line(trial)}", style="red", markup=False, highlight=False)
    for visit in found.visits:
        console.print(f"held before: {visit.before}\n      after: {visit.after}", markup=False, highlight=False)


def markdown(found: Found) -> str:
    """Return the tables as Markdown."""
    return "\n\n".join(
        "\n".join([_markdown(names), _markdown(["---"] * len(names)), *map(_markdown, rows)])
        for names, rows in tables(found)
    )


def tables(found: Found) -> list[tuple[Sequence[str], list[list[str]]]]:
    """Return the columns and rows of each table that is not empty."""
    every: list[tuple[Sequence[str], list[list[str]]]] = [
        (_MESSAGES, _message_rows(found.trials)),
        (_CROWDS, [_crowd_row(crowd) for crowd in found.crowds]),
        (_RUNS, [_run_row(run) for run in found.long_runs]),
    ]
    return [table for table in every if table[1]]


def _markdown(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _message_rows(trials: Sequence[Trial]) -> list[list[str]]:
    """Return a row for each method and size: the maximum of each figure, and the kind with the longest silence."""
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.method.rpartition("/")[2], trial.size), []).append(trial)
    return [_message_row(method, size, group) for (method, size), group in groups.items()]


def _message_row(method: str, size: str, group: list[Trial]) -> list[str]:
    loudest = max(group, key=lambda trial: trial.silence_s)
    hungriest = max(group, key=lambda trial: ratios(trial).growth)
    return [
        method,
        size,
        str(len(group)),
        _ms(loudest.silence_s),
        f"{ratios(loudest).silence:.2f}",
        _ms(max(trial.caller_silence_s for trial in group)),
        f"{max(0, hungriest.growth_bytes) / _MB:,.0f}",
        f"{max(0.0, ratios(hungriest).growth):.2f}",
        loudest.kind.partition(": ")[2],
    ]


def _crowd_row(crowd: CrowdTrial) -> list[str]:
    answers = ", ".join(f"{count:,} {name}" for name, count in sorted(crowd.answers.items()))
    resident = (crowd.rss_before_bytes, crowd.rss_peak_bytes, crowd.rss_after_bytes)
    silences = (_ms(crowd.silence_s), _ms(crowd.caller_silence_s))
    return [
        crowd.crowd,
        answers,
        *silences,
        *(f"{rss / _MIB:,.0f}" for rss in resident),
        _yes(crowd_is_within_limits(crowd)),
    ]


def _run_row(run: LongRun) -> list[str]:
    stopped = "" if run.stopped_s is None else f"{run.stopped_s:.1f}, exit {run.exit_code}"
    seconds = (f"{run.took_s:.1f}", _ms(run.silence_s), f"{run.answered_again_s:.1f}")
    return [run.run, run.status, *seconds, stopped, _yes(long_run_is_within_limits(run))]


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.0f}"


def _yes(is_within_limits: bool) -> str:
    return "yes" if is_within_limits else "NO"

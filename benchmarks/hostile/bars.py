"""What a server may let hostile callers do to it."""

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.hostile.long_runs import GRACE_S, LongRun
from benchmarks.hostile.siege import BUDGET_BYTES, Siege
from benchmarks.hostile.trial import Trial

_MB = 1_000_000
#: Health may be silent for so long, by the size of the message.
_SILENCE_S = {6 * _MB: 0.1, 64 * _MB: 0.3}
_CALLER_SILENCE_S = 1.0
#: When the machine is so late, figures are of no use.
_LATE_S = 0.02
_GROWTH = 4
#: What a server takes for other callers meanwhile.
_OTHERS_BYTES = 8 * _MB
_BUDGET_SLACK = 1.1
_RSS_BACK = 1.2
_RUN_SILENCE_S = 0.1
_ANSWERED_AGAIN_S = 5.0
_STOP_SLACK_S = 5.0
#: What arrays of the largest request take that the default limits let through: a million elements of text or number.
_ARRAYS_BYTES = 64 * _MB


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratios:
    """What was seen over what may be, 1 at most. ``growth`` is over the message and the arrays that it made."""

    silence: float
    caller: float
    growth: float

    @property
    def worst(self) -> float:
        """The greatest of them."""
        return max(self.silence, self.caller, self.growth)


def ratios(trial: Trial) -> Ratios:
    """Hold a trial against the bars."""
    silence_s = next((bar for size, bar in _SILENCE_S.items() if trial.message_bytes <= size * 1.1), 0.3)
    allowed = _GROWTH * trial.message_bytes + _OTHERS_BYTES + (_ARRAYS_BYTES if trial.status == "OK" else 0)
    return Ratios(
        silence=trial.silence_s / silence_s,
        caller=trial.caller_silence_s / _CALLER_SILENCE_S,
        growth=trial.growth_bytes / allowed,
    )


def worst(trial: Trial) -> float:
    """Return the greatest of its ratios."""
    return ratios(trial).worst


def is_kept(trial: Trial) -> bool:
    """Return whether the server lived and kept every bar."""
    return not trial.server_ended and worst(trial) <= 1


def broken(trials: Iterable[Trial]) -> list[Trial]:
    """Return those that broke a bar, the worst first."""
    found = [trial for trial in trials if not is_kept(trial)]
    return sorted(found, key=worst, reverse=True)


def line(trial: Trial) -> str:
    """Say in one line what a message did."""
    held = ratios(trial)
    late = f", the machine {trial.late_s * 1e3:,.0f} ms" if trial.late_s > _LATE_S else ""
    failures = f", caller's failures {trial.caller_failures}" if trial.caller_failures else ""
    return (
        f"{trial.kind}, {trial.size}: {trial.status} after {trial.took_s * 1e3:,.0f} ms; health silent "
        f"{trial.silence_s * 1e3:,.0f} ms ({held.silence:.2f}), caller {trial.caller_silence_s * 1e3:,.0f} ms "
        f"({held.caller:.2f}), memory {trial.growth_bytes / _MB:+,.0f} MB ({held.growth:.2f}){late}{failures}"
        + (", SERVER ENDED" if trial.server_ended else "")
    )


def siege_is_kept(siege: Siege) -> bool:
    """Return whether the server lived, others had answers, and memory stayed within the budget and came back."""
    within = siege.rss_peak_bytes <= siege.rss_before_bytes + BUDGET_BYTES * _BUDGET_SLACK
    is_back = siege.rss_after_bytes <= siege.rss_before_bytes * _RSS_BACK
    return not siege.server_ended and siege.caller_silence_s <= _CALLER_SILENCE_S and within and is_back


def long_run_is_kept(run: LongRun) -> bool:
    """Return whether others noticed little, and the server ended in time where it was to end."""
    is_stopped = run.stopped_s is None or run.stopped_s <= GRACE_S + _STOP_SLACK_S
    return is_stopped and run.silence_s <= _RUN_SILENCE_S and run.answered_again_s <= _ANSWERED_AGAIN_S

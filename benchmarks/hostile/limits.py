"""Limits for the effects of hostile callers on a server."""

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.hostile.crowd_trial import BUDGET_BYTES, CrowdTrial
from benchmarks.hostile.long_runs import GRACE_S, LongRun
from benchmarks.hostile.trial import Trial

_MB = 1_000_000
#: Longest time without an answer of the health service, by size of the message.
_SILENCE_S = {6 * _MB: 0.1, 64 * _MB: 0.3}
_CALLER_SILENCE_S = 1.0
#: Figures are discarded if the machine was this late.
_LATE_S = 0.02
_GROWTH = 4
#: Memory that the server takes for other callers meanwhile.
_OTHERS_BYTES = 8 * _MB
_BUDGET_SLACK = 1.1
_RSS_BACK = 1.2
_RUN_SILENCE_S = 0.1
_ANSWERED_AGAIN_S = 5.0
_STOP_SLACK_S = 5.0
#: Arrays of the largest request within the default limits: a million elements, text or numbers.
_ARRAYS_BYTES = 64 * _MB


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratios:
    """Measurements relative to their limits. ``growth`` is relative to the message and its arrays."""

    silence: float
    caller: float
    growth: float

    @property
    def worst(self) -> float:
        """The largest ratio."""
        return max(self.silence, self.caller, self.growth)


def ratios(trial: Trial) -> Ratios:
    """Compare a trial with the limits."""
    silence_s = next((bar for size, bar in _SILENCE_S.items() if trial.message_bytes <= size * 1.1), 0.3)
    allowed = _GROWTH * trial.message_bytes + _OTHERS_BYTES + (_ARRAYS_BYTES if trial.status == "OK" else 0)
    return Ratios(
        silence=trial.silence_s / silence_s,
        caller=trial.caller_silence_s / _CALLER_SILENCE_S,
        growth=trial.growth_bytes / allowed,
    )


def worst(trial: Trial) -> float:
    """Return the largest ratio of a trial."""
    return ratios(trial).worst


def is_within_limits(trial: Trial) -> bool:
    """Return whether the server survived and exceeded no limit."""
    return not trial.server_ended and worst(trial) <= 1


def broken(trials: Iterable[Trial]) -> list[Trial]:
    """Return the trials that exceeded a limit, the worst first."""
    found = [trial for trial in trials if not is_within_limits(trial)]
    return sorted(found, key=worst, reverse=True)


def line(trial: Trial) -> str:
    """Describe the effects of a message in one line."""
    held = ratios(trial)
    late = f", the machine {trial.late_s * 1e3:,.0f} ms" if trial.late_s > _LATE_S else ""
    failures = f", caller's failures {trial.caller_failures}" if trial.caller_failures else ""
    return (
        f"{trial.kind}, {trial.size}: {trial.status} after {trial.took_s * 1e3:,.0f} ms; health silent "
        f"{trial.silence_s * 1e3:,.0f} ms ({held.silence:.2f}), caller {trial.caller_silence_s * 1e3:,.0f} ms "
        f"({held.caller:.2f}), memory {trial.growth_bytes / _MB:+,.0f} MB ({held.growth:.2f}){late}{failures}"
        + (", SERVER ENDED" if trial.server_ended else "")
    )


def crowd_is_within_limits(crowd: CrowdTrial) -> bool:
    """Return whether the server survived, others had answers, and memory stayed within the budget and was released."""
    within = crowd.rss_peak_bytes <= crowd.rss_before_bytes + BUDGET_BYTES * _BUDGET_SLACK
    is_back = crowd.rss_after_bytes <= crowd.rss_before_bytes * _RSS_BACK
    return not crowd.server_ended and crowd.caller_silence_s <= _CALLER_SILENCE_S and within and is_back


def long_run_is_within_limits(run: LongRun) -> bool:
    """Return whether others were hardly affected, and the server stopped in time where it was asked to."""
    is_stopped = run.stopped_s is None or run.stopped_s <= GRACE_S + _STOP_SLACK_S
    return is_stopped and run.silence_s <= _RUN_SILENCE_S and run.answered_again_s <= _ANSWERED_AGAIN_S

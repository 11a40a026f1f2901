"""Find the time in a step in which the server answered nothing, for a reason other than load. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from inferd.bench.recorder import OVERLOAD_CODES, Interval, Recorder

# In a shorter time a few requests failed, which the counts of statuses have.
_SHORTEST_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Outage:
    """A time without answers, in seconds from the start of the step; ``to_s`` is None if the server is still away."""

    from_s: float
    to_s: float | None
    error: str

    def text(self) -> str:
        """Return the outage as a phrase."""
        until = "on" if self.to_s is None else f"to {self.to_s:.1f} s"
        return f"the server answered nothing from {self.from_s:.1f} s {until}{f': {self.error}' if self.error else ''}"


def find_outage(recorder: Recorder, away: str) -> Outage | None:
    """Return the longest outage of a step; ``away`` is the error of a call after it, empty if that was answered.

    Times are those of whole intervals of the recorder.
    """
    interval_s, window = recorder.interval_s, recorder.window
    first = int((window.warm_s - window.start_s) / interval_s)
    ended = [(index, each) for index, each in enumerate(recorder.intervals) if index >= first and each.ended]
    if away:
        answered = max((index + 1 for index, each in ended if each.ok), default=first)
        return Outage(from_s=answered * interval_s, to_s=None, error=away)
    silent = _longest_silence(ended)
    if not silent:
        return None
    from_s, to_s = silent[0] * interval_s, (silent[-1] + 1) * interval_s
    if to_s - from_s < _SHORTEST_S and len(silent) < len(ended):
        return None
    return Outage(from_s=from_s, to_s=to_s, error=_most_frequent_error(recorder))


def _longest_silence(ended: Sequence[tuple[int, Interval]]) -> list[int]:
    """Return the intervals in a row in which every request that ended was broken."""
    rows = [[index for index, _ in group] for broken, group in groupby(ended, _all_broken) if broken]
    return max(rows, key=lambda row: row[-1] - row[0], default=[])


def _all_broken(numbered: tuple[int, Interval]) -> bool:
    return numbered[1].broken == numbered[1].ended


def _most_frequent_error(recorder: Recorder) -> str:
    statuses = recorder.total().statuses
    for status, _ in statuses.counts.most_common():
        if status[0] not in OVERLOAD_CODES:
            message = statuses.messages.get(status, "")
            return f"{' '.join(status).strip()}{f': {message}' if message else ''}"
    return ""

"""What a server may let hostile messages do to it, and the table of what they did."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from benchmarks.hostile.trial import Trial, Visit

_MB = 1_000_000
#: Health may be silent for so long, by the size of the message.
_SILENCE_S = {6 * _MB: 0.1, 64 * _MB: 0.3}
_CALLER_SILENCE_S = 1.0
#: When the machine is so late, figures are of no use.
_LATE_S = 0.02
_GROWTH = 4
#: What arrays of the largest request take that the default limits let through: a million elements of text or number.
_ARRAYS_BYTES = 64 * _MB


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratios:
    """What was seen over what may be, 1 at most. ``growth`` is over the message and the arrays that it made."""

    silence: float
    caller: float
    growth: float

    @property
    def are_kept(self) -> bool:
        """Whether every bar holds."""
        return max(self.silence, self.caller, self.growth) <= 1


def ratios(trial: Trial) -> Ratios:
    """Hold a trial against the bars."""
    silence_s = next((bar for size, bar in _SILENCE_S.items() if trial.message_bytes <= size * 1.1), 0.3)
    allowed = _GROWTH * trial.message_bytes + (_ARRAYS_BYTES if trial.status == "OK" else 0)
    return Ratios(
        silence=trial.silence_s / silence_s,
        caller=trial.caller_silence_s / _CALLER_SILENCE_S,
        growth=trial.growth_bytes / allowed,
    )


def is_kept(trial: Trial) -> bool:
    """Return whether the server lived and kept every bar."""
    return not trial.server_ended and ratios(trial).are_kept


def broken(trials: Iterable[Trial]) -> list[Trial]:
    """Return those that broke a bar, the worst first."""
    found = [trial for trial in trials if not is_kept(trial)]
    return sorted(found, key=lambda trial: -max(ratios(trial).silence, ratios(trial).caller, ratios(trial).growth))


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


def show(trials: Sequence[Trial], visits: Sequence[Visit], console: Console) -> None:
    """Print the worst of each method and size, then all that broke a bar, then what the server held at the end."""
    table = Table(
        "method", "size", "kinds", "health silent ms", "of bar", "caller ms", "memory MB", "of bar", "worst kind"
    )
    for row in rows(trials):
        table.add_row(*row)
    console.print(table)
    for trial in broken(trials):
        console.print(f"broke a bar: {line(trial)}", style="red", markup=False, highlight=False)
    for visit in visits:
        console.print(f"held before: {visit.before}\n      after: {visit.after}", markup=False, highlight=False)


def rows(trials: Sequence[Trial]) -> list[list[str]]:
    """Return a row for each method and size: the greatest of every number, and the kind whose silence was longest."""
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.kind.partition(":")[0], trial.size), []).append(trial)
    return [_row(method, size, group) for (method, size), group in groups.items()]


def _row(method: str, size: str, group: list[Trial]) -> list[str]:
    loudest = max(group, key=lambda trial: trial.silence_s)
    hungriest = max(group, key=lambda trial: ratios(trial).growth)
    return [
        method,
        size,
        str(len(group)),
        f"{loudest.silence_s * 1e3:,.0f}",
        f"{ratios(loudest).silence:.2f}",
        f"{max(trial.caller_silence_s for trial in group) * 1e3:,.0f}",
        f"{hungriest.growth_bytes / _MB:,.0f}",
        f"{ratios(hungriest).growth:.2f}",
        loudest.kind.partition(": ")[2],
    ]

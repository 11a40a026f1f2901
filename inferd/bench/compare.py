"""Compare two reports, step by step. Pure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from inferd.bench.report import Report, load_text


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A figure of a step, and the direction in which it is better."""

    name: str
    unit: str
    value: Callable[[Report], float | None]
    more_is_better: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Delta:
    """One figure of the same load in two reports."""

    load: str
    metric: Metric
    before: float | None
    after: float | None

    @property
    def change(self) -> float | None:
        """The change relative to ``before``; None if that is 0 or missing."""
        return (self.after - self.before) / self.before if self.before and self.after is not None else None

    @property
    def better(self) -> bool | None:
        """True if it changed for the better; None without a change."""
        if self.before is None or self.after is None or self.before == self.after:
            return None
        return (self.after > self.before) is self.metric.more_is_better


def _latency(name: str) -> Callable[[Report], float | None]:
    def value(step: Report) -> float | None:
        latency: dict[str, float] | None = step["latency_ms"]
        return None if latency is None else latency.get(name)

    return value


def _failed_share(step: Report) -> float | None:
    return 100 * step["failed"] / step["requests"] if step["requests"] else None


def _good_share(step: Report) -> float | None:
    share: float | None = step["goodput"]["share"]
    return None if share is None else 100 * share


METRICS = (
    Metric(name="throughput", unit="/s", value=lambda step: step["throughput_per_s"], more_is_better=True),
    Metric(name="rows", unit="/s", value=lambda step: step["rows_per_s"], more_is_better=True),
    Metric(name="goodput", unit="%", value=_good_share, more_is_better=True),
    Metric(name="failed", unit="%", value=_failed_share, more_is_better=False),
    *(
        Metric(name=name, unit="ms", value=_latency(name), more_is_better=False)
        for name in ("mean", "p50", "p90", "p99", "p99.9", "max")
    ),
)


def differences(before: Report, after: Report) -> Iterator[Delta]:
    """Yield the figures of each load that both reports have, in the order of the second."""
    earlier = {_key(step): step for step in before["steps"]}
    for step in after["steps"]:
        other = earlier.get(_key(step))
        if other is not None:
            for metric in METRICS:
                yield Delta(
                    load=load_text(step["load"]), metric=metric, before=metric.value(other), after=metric.value(step)
                )


def unmatched(before: Report, after: Report) -> list[str]:
    """Return the loads that only one of the reports has."""
    texts: list[dict[Any, str]] = [
        {_key(step): load_text(step["load"]) for step in report["steps"]} for report in (before, after)
    ]
    return [text for mine, theirs in (texts, texts[::-1]) for key, text in mine.items() if key not in theirs]


def different_settings(before: Report, after: Report) -> list[str]:
    """Return texts of the settings that differ, whose effect is not the server's."""
    found = []
    for name in sorted(before["plan"].keys() | after["plan"].keys()):
        first, second = before["plan"].get(name), after["plan"].get(name)
        if name == "classes":
            first, second = _without_names(first), _without_names(second)
        if first != second:
            found.append(f"{name}: {first} and {second}")
    return found


def _without_names(classes: list[Report] | None) -> list[Report]:
    return [{key: value for key, value in each.items() if key != "name"} for each in classes or ()]


def _key(step: Report) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, str(value)) for name, value in step["load"].items()))

"""Results of overload: the record of one load, and the table of all."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Column, Table


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """A kind of overload: ``factor`` times the capacity is offered.

    With ``fail_fast``, a request beyond the server's limit of streams fails at once in the client; otherwise it waits
    there without a limit.
    """

    factor: float
    deadline_ms: float | None
    connections: int
    fail_fast: bool

    def __str__(self) -> str:
        """Describe it briefly."""
        deadline = f", {self.deadline_ms:g} ms" if self.deadline_ms else ""
        clients = "failing fast" if self.fail_fast else "holding back"
        return f"{self.factor:g}x{deadline}, {self.connections} {clients}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Overload:
    """One load on one server. ``share`` is the goodput relative to the capacity; the latencies are of OK answers.

    ``outcomes`` counts all other outcomes; ``ended_with`` is the exit code of a server that crashed, or the negative
    number of a signal. ``max_held_back`` requests waited in one client for a stream. The resident set is the server's,
    before the load and after it.
    """

    server: str
    model: str
    placement: str
    round: int
    capacity_per_s: float
    way: Way
    requests: int
    share: float
    p50_ms: float
    p99_ms: float
    outcomes: dict[str, int]
    ended_with: int | None
    max_in_flight: int
    max_held_back: int
    first_failure: str
    health_p99_ms: float
    health_max_ms: float
    health_failures: int
    http_p99_ms: float | None = None
    http_max_ms: float | None = None
    http_failures: int = 0
    rss_before_mib: float
    rss_after_mib: float
    client_cores: float


def show(measured: Sequence[Overload], console: Console) -> None:
    """Print the medians of the rounds, and the failures of all rounds."""
    table = Table(
        "server, model, placement", "capacity/s", "load, deadline, connections", "in 1 s",
        "p50 ms", "p99 ms", "health p99 ms", "HTTP p99 ms", "RSS MiB", Column("not answered OK", no_wrap=True),
    )  # fmt: skip
    groups: dict[tuple[str, str, str, Way], list[Overload]] = {}
    for one in measured:
        groups.setdefault((one.model, one.placement, one.server, one.way), []).append(one)
    for (model, placement, server, way), group in groups.items():
        table.add_row(f"{server}, {model}, {placement}", *_cells(group, way))
    console.print(table)


def _cells(group: Sequence[Overload], way: Way) -> list[str]:
    def middle(of: Callable[[Overload], float]) -> float:
        return median(map(of, group))

    failures, requests = sum(one.health_failures for one in group), sum(one.requests for one in group)
    outcomes = sum((Counter(one.outcomes) for one in group), Counter())
    crashes = [f"crashed ({one.ended_with})" for one in group if one.ended_with is not None]
    return [
        f"{middle(lambda one: one.capacity_per_s):,.0f}",
        str(way),
        f"{middle(lambda one: one.share):.0%}",
        f"{middle(lambda one: one.p50_ms):.0f}",
        f"{middle(lambda one: one.p99_ms):.0f}",
        f"{middle(lambda one: one.health_p99_ms):.0f}" + (f" ({failures} failed)" if failures else ""),
        _http_cell(group),
        f"{middle(lambda one: one.rss_before_mib):,.0f} to {middle(lambda one: one.rss_after_mib):,.0f}",
        "\n".join([*crashes, *(f"{name} {count / requests:.1%}" for name, count in outcomes.most_common())]),
    ]


def _http_cell(group: Sequence[Overload]) -> str:
    measured = [one.http_p99_ms for one in group if one.http_p99_ms is not None]
    failures = sum(one.http_failures for one in group)
    return (f"{median(measured):.0f}" if measured else "") + (f" ({failures} failed)" if failures else "")

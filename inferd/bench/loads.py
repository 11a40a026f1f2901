"""The times at which requests are sent. Pure: random generators are arguments.

A closed loop keeps a number of requests in flight: after each answer it sends the next request. An open loop sends at
times that do not depend on answers, as independent clients do.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, takewhile
from math import isfinite
from typing import Literal, NamedTuple

import numpy as np

Process = Literal["poisson", "constant"]


class Arrival(NamedTuple):
    """A request of an open loop: seconds after the start, and its rows; None for those of its traffic class."""

    at_s: float
    rows: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ClosedLoop:
    """``concurrency`` requests in flight at any time."""

    concurrency: int

    def share(self, worker: int, workers: int) -> "ClosedLoop":
        """Return the share of one of several workers, numbered from 0."""
        return replace(self, concurrency=len(range(worker, self.concurrency, workers)))


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenLoop:
    """``rate_per_s`` requests a second: a Poisson process, or evenly spaced from ``first_s`` on."""

    rate_per_s: float
    process: Process = "poisson"
    first_s: float = 0.0

    def share(self, worker: int, workers: int) -> "OpenLoop":
        """Return the share of one of several workers; all shares together are this load."""
        first_s = self.first_s + worker / self.rate_per_s
        return replace(self, rate_per_s=self.rate_per_s / workers, first_s=first_s)

    def arrivals(self, random: np.random.Generator) -> Iterator[Arrival]:
        """Yield arrivals without end."""
        if self.process == "constant":
            yield from (Arrival(self.first_s + number / self.rate_per_s) for number in count())
        at_s = 0.0
        while True:
            at_s += random.exponential(1 / self.rate_per_s)
            yield Arrival(at_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """Recorded arrivals, in ascending order."""

    entries: tuple[Arrival, ...]

    @property
    def duration_s(self) -> float:
        """The time of the last request."""
        return self.entries[-1].at_s

    def until(self, end_s: float) -> "Trace":
        """Return the arrivals before ``end_s``."""
        return Trace(entries=tuple(takewhile(lambda entry: entry.at_s < end_s, self.entries)))

    def share(self, worker: int, workers: int) -> "Trace":
        """Return the share of one of several workers."""
        return Trace(entries=self.entries[worker::workers])

    def arrivals(self, random: np.random.Generator) -> Iterator[Arrival]:  # noqa: ARG002  (as the other open loop)
        """Yield all arrivals."""
        return iter(self.entries)


Load = ClosedLoop | OpenLoop | Trace


def parse_trace(lines: Iterable[str]) -> Trace:
    """Parse lines of ``SECONDS[,ROWS]``, after an optional header. Times are relative to the first one.

    Raises `ValueError` with the line, the expected and the actual value.
    """
    entries: list[Arrival] = []
    for number, fields in enumerate(csv.reader(lines), 1):
        if not fields or (number == 1 and not _is_number(fields[0])):
            continue
        entry = _entry(number, fields)
        if entries and entry.at_s < entries[-1].at_s:
            raise ValueError(f"line {number}: expected a time of at least {entries[-1].at_s:g}, got {entry.at_s:g}")
        entries.append(entry)
    if not entries:
        msg = "expected lines of SECONDS or SECONDS,ROWS, got none"
        raise ValueError(msg)
    first_s = entries[0].at_s
    return Trace(entries=tuple(entry._replace(at_s=entry.at_s - first_s) for entry in entries))


def _entry(number: int, fields: Sequence[str]) -> Arrival:
    if len(fields) > 2:
        raise ValueError(f"line {number}: expected SECONDS or SECONDS,ROWS, got {len(fields)} fields")
    if not _is_number(fields[0]):
        raise ValueError(f'line {number}: seconds: expected a number, got "{fields[0]}"')
    rows = fields[1].strip() if len(fields) == 2 else ""
    if rows and not (rows.isdecimal() and int(rows) > 0):
        raise ValueError(f'line {number}: rows: expected an integer of at least 1, got "{rows}"')
    return Arrival(float(fields[0]), int(rows) if rows else None)


def _is_number(text: str) -> bool:
    try:
        return isfinite(float(text))
    except ValueError:
        return False

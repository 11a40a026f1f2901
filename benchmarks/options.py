"""Command-line options that the benchmarks share."""

import argparse
import signal
import sys
from collections.abc import Iterable, Sequence

from benchmarks.models import MODELS, Model
from benchmarks.process import Placement
from benchmarks.rounds import CONCURRENCIES


def parser(description: str | None, name: str) -> argparse.ArgumentParser:
    """Return a parser for models and ``--name``, whose default is ``name``."""
    # On SIGTERM too, a benchmark must stop the servers that it has started.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    made = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    add = made.add_argument
    add("--model", action="append", choices=list(MODELS), help="may be repeated")
    add("--name", default=name, help=f"results are written to benchmarks/results/NAME.*; default {name}")
    return made


def add_placement_and_rounds(parser: argparse.ArgumentParser, *, rounds: int = 3) -> None:
    """Add the placement, and the number of rounds."""
    choices = [*Placement]
    parser.add_argument("--placement", action="append", choices=choices, help="may be repeated; default both")
    add_rounds(parser, rounds=rounds)


def add_rounds(parser: argparse.ArgumentParser, *, rounds: int = 3) -> None:
    """Add the number of rounds."""
    parser.add_argument("--rounds", type=int, default=rounds, help=f"default {rounds}")


def add_concurrency(parser: argparse.ArgumentParser, *, default: Sequence[int] = CONCURRENCIES) -> None:
    """Add the number of calls in flight."""
    text = f"calls in flight, may be repeated; default {default}"
    parser.add_argument("--concurrency", action="append", type=int, help=text)


def models(chosen: argparse.Namespace, default: Iterable[str]) -> list[Model]:
    """Return the chosen models."""
    return [MODELS[name] for name in chosen.model or default]


def placements(chosen: argparse.Namespace) -> list[Placement]:
    """Return the chosen placements, or both."""
    return [Placement(name) for name in chosen.placement or Placement]

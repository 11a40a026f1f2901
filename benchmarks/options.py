"""The options that the measuring commands share."""

import argparse
from collections.abc import Iterable

from benchmarks.models import MODELS, Model
from benchmarks.process import Placement
from benchmarks.rounds import CONCURRENCIES


def parser(description: str | None, name: str) -> argparse.ArgumentParser:
    """Return a parser with them. ``name`` is what the results are called unless the user says otherwise."""
    made = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    add = made.add_argument
    add("--model", action="append", choices=list(MODELS), help="may be repeated")
    add("--placement", action="append", choices=[*Placement], help="may be repeated; both if left out")
    add("--concurrency", action="append", type=int, help=f"calls in flight, may be repeated; {CONCURRENCIES}")
    add("--rounds", type=int, default=3, help="default 3")
    add("--name", default=name, help=f"results are written to benchmarks/results/NAME.*; default {name}")
    return made


def models(chosen: argparse.Namespace, default: Iterable[str]) -> list[Model]:
    """Return the models that were chosen."""
    return [MODELS[name] for name in chosen.model or default]


def placements(chosen: argparse.Namespace) -> list[Placement]:
    """Return the placements that were chosen, or both."""
    return [Placement(name) for name in chosen.placement or Placement]

"""Random graphs are batched only if batching never changes an output, and nearly always then."""

import logging
from pathlib import Path

import pytest

from tests.random_graphs import RandomModel, Truth, make_graph, truth
from tests.random_graphs.verdict import inferd_batches

#: ``make test-graphs`` has 2,000.
_SEEDS = range(50)
_LEAST_PROVEN = 0.95


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, RandomModel, Truth, bool]]:
    """Return each seed with its model, the truth, and whether inferd batches it."""
    folder: Path = tmp_path_factory.mktemp("random_graphs")
    logging.disable(logging.WARNING)
    try:
        models = [(seed, make_graph(seed)) for seed in _SEEDS]
        return [(seed, model, truth(model, seed), inferd_batches(model, folder)) for seed, model in models]
    finally:
        logging.disable(logging.NOTSET)


def test_never_batches_unsafe_graph(verdicts):
    wrong = [
        (seed, model.recipe, found.reason) for seed, model, found, batched in verdicts if batched and not found.safe
    ]
    assert not wrong


def test_batches_nearly_all_safe_graphs(verdicts):
    safe = [(seed, model.recipe, batched) for seed, model, found, batched in verdicts if found.safe]
    unproven = [(seed, recipe) for seed, recipe, batched in safe if not batched]
    assert len(unproven) <= (1 - _LEAST_PROVEN) * len(safe), unproven

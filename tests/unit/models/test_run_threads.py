"""Threads of runs where there are many model versions."""

import pytest

from inferd.config.settings import ModelSettings, Settings
from inferd.models.run_threads import bounded
from inferd.runtime.providers import CPU, CUDA


def threads(versions: int, cores: int, available: tuple[str, ...] = (CPU,), **runtime: object) -> int:
    settings = Settings.model_validate({"runtime": runtime}).for_model({})
    assert isinstance(settings, ModelSettings)
    found = bounded(settings, versions=versions, cores=cores, available=list(available))
    assert found.batching is settings.batching
    return found.runtime.intra_op_threads


@pytest.mark.parametrize(
    ("versions", "cores", "expected"),
    [(1, 2, 0), (80, 2, 0), (81, 2, 1), (200, 2, 1), (1, 64, 0), (9, 64, 0), (20, 64, 29), (200, 64, 3), (1000, 64, 1)],
)
def test_few_versions_have_all_cores_and_many_share_a_number(versions: int, cores: int, expected: int) -> None:
    """0 is to have them worked out: all cores. Of the others, all threads together are no more than the bound."""
    assert threads(versions, cores) == expected
    assert versions * max(expected - 1, 0) <= 64 + 8 * cores


def test_what_is_set_stands() -> None:
    """By the server's settings or the model's own."""
    assert threads(1000, 64, intra_op_threads=16) == 16


def test_on_an_accelerator_a_run_has_one_thread_anyway() -> None:
    """So it is left to be worked out; on its CPU the bound holds."""
    assert threads(200, 64, (CUDA, CPU)) == 0
    assert threads(200, 64, (CUDA, CPU), providers=["cpu"]) == 3
    assert threads(200, 64, (CPU,), providers=["unknown"]) == 3

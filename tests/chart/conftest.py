"""Timeouts of the chart's tests."""

import pytest

from tests.chart.rendering import PATIENCE_S


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Set a generous timeout: no test may hang, but none measures time."""
    for item in items:
        if item.path.is_relative_to(__file__.removesuffix("/conftest.py")):
            item.add_marker(pytest.mark.timeout(PATIENCE_S))

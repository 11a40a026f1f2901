"""How long a test of the chart may take."""

import pytest

from tests.chart.rendering import PATIENCE_S


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give them all time, however slow or busy the machine: none may hang, but none is about how long it takes."""
    for item in items:
        if item.path.is_relative_to(__file__.removesuffix("/conftest.py")):
            item.add_marker(pytest.mark.timeout(PATIENCE_S))

"""Metrics in a registry of their own."""

import pytest
from prometheus_client import CollectorRegistry

from inferd.observability.metrics.registry import Metrics
from inferd.observability.recorder import CallRecorder
from tests.unit.observability.fakes import INFER


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry(auto_describe=False)


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry, CallRecorder(), methods=[INFER])

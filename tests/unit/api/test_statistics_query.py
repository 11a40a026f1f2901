"""Which versions the statistics of the Open Inference Protocol are of."""

import pytest

from inferd._generated.inference import grpc_service_pb2 as pb
from inferd.api.oip.queries import OpenInferenceQueries
from inferd.errors import ModelUnavailableError
from inferd.models.registry import ModelRegistry
from inferd.observability.metrics.residency import ResidencyCounts
from inferd.runtime.batch_axes.verdict import Standing, Verdict
from tests.unit.api.test_verdicts import version

_READY = Verdict(standing=Standing.PROVEN)


def _ask(registry, name="", number=""):
    queries = OpenInferenceQueries(lambda: True, lambda _: ResidencyCounts(), {})
    answer = queries.model_statistics(pb.ModelStatisticsRequest(name=name, version=number), registry)
    return [each.version for each in answer.model_stats]


@pytest.fixture
def registry():
    """Versions 1 and 3 of "m" are ready, 2 is not."""
    registry = ModelRegistry()
    for number, verdict in (("1", _READY), ("2", None), ("3", _READY)):
        registry.add(version(verdict, number=number))
    return registry


def test_statistics_are_of_versions_that_answer_requests(registry):
    """Of all models, of one, and of one version; as Triton's."""
    assert _ask(registry) == ["3", "1"]
    assert _ask(registry, "m") == ["3", "1"]
    assert _ask(registry, "m", "1") == ["1"]


def test_versions_that_are_not_there_have_none(registry):
    """An error rather than zeros, which would be those of a version without requests."""
    with pytest.raises(ModelUnavailableError, match='model "m" version "2" is loading'):
        _ask(registry, "m", "2")
    for number in "13":
        registry.remove(next(each for each in registry.versions("m") if each.version == number))
    assert _ask(registry) == []
    with pytest.raises(ModelUnavailableError, match='model "m" version "2" is loading'):
        _ask(registry, "m")

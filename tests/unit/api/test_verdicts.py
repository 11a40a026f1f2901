"""Measured parts of a model's description: its batching verdict and predicted run times."""

from types import SimpleNamespace

import pytest

from inferd._generated.inferd.v1 import inference_pb2
from inferd.api.oip.statistics import model_statistics
from inferd.api.v1.service import describe_model
from inferd.config.settings import ModelSettings
from inferd.models.load_meter import Measured
from inferd.models.loaded import LoadedModel
from inferd.models.residency import Memory
from inferd.models.states import ModelState
from inferd.models.version import ModelVersion
from inferd.observability.metrics.models import ModelStats
from inferd.observability.metrics.residency import ResidencyCounts
from inferd.observability.metrics.run_cost import PredictedRun, RunCost
from inferd.runtime.batch_axes.verdict import Standing, Verdict
from tests.fakes import SCALING
from tests.unit.models.language_versions import language_version


class FakeSession:
    signature = SCALING
    providers = ("CPUExecutionProvider",)

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict


class FakeBatcher:
    """A batcher that has checked three batches and found one mismatch, and has ``cost``."""

    why_broken = ""
    max_rows = 64
    instances = SimpleNamespace(count=2)

    def __init__(self, cost=None):
        self._cost = cost

    def run_cost(self):
        return self._cost

    @staticmethod
    def statistics():
        stats = ModelStats()
        for mismatch in (False, True, False):
            stats.checked(0.25, mismatch=mismatch)
        return stats.read()


def version(verdict: Verdict | None = None, cost: RunCost | None = None, number: str = "1") -> ModelVersion:
    made = ModelVersion(name="m", version=number, settings=ModelSettings())
    if verdict is not None:
        made.advance(ModelState.VERIFYING)
        made.advance(ModelState.WARMING)
        measured = Measured(load_s=0.5)
        loaded = LoadedModel(
            session=FakeSession(verdict), batcher=FakeBatcher(cost), memory=Memory(5000, 700), measured=measured
        )
        made.mark_ready(loaded)
    return made


def statistics(of: ModelVersion):
    residency = ResidencyCounts()
    residency.loads["demand"], residency.evictions[False] = 3, 2
    return model_statistics(of, residency, 9)


def test_description_has_present_instances():
    """None before the model is loaded."""
    assert describe_model(version(Verdict(standing=Standing.PROVEN))).batching.present_instances == 2
    assert describe_model(version()).batching.present_instances == 0


@pytest.mark.parametrize("standing", Standing)
def test_description_has_verdict(standing):
    """Each verdict, with its reason and the results of the checks."""
    told = describe_model(version(Verdict(standing=standing, reason="why"))).batching
    assert inference_pb2.Batching.Verdict.Name(told.verdict) == f"VERDICT_{standing.name}"
    assert (told.verdict_reason, told.checks, told.mismatches) == ("why", 3, 1)


@pytest.mark.parametrize("standing", Standing)
def test_statistics_have_verdict(standing):
    """In fields of inferd's own."""
    told = statistics(version(Verdict(standing=standing, reason="why")))
    assert (told.batch_verdict, told.batch_verdict_reason) == (standing.value, "why")
    assert (told.batch_checks, told.batch_mismatches) == (3, 1)


def test_loading_model_has_no_verdict():
    """In both protocols."""
    told = describe_model(version()).batching
    assert (told.verdict, told.verdict_reason, told.checks) == (inference_pb2.Batching.VERDICT_UNSPECIFIED, "", 0)
    assert statistics(version()).batch_verdict == ""


def test_other_clients_skip_own_fields():
    """Their numbers are far above those that Triton assigns."""
    theirs = {field.number for field in statistics(version()).DESCRIPTOR.fields if field.number <= 1000}
    ours = {field.name for field in statistics(version()).DESCRIPTOR.fields if field.number > 1000}
    assert theirs == set(range(1, 9))
    assert ours == {
        "batch_verdict", "batch_verdict_reason", "batch_checks", "batch_mismatches",
        "model_loads", "model_evictions", "cold_requests",
    }  # fmt: skip


@pytest.mark.parametrize("error", [0.125, None])
def test_description_has_run_cost(error):
    """Each size with its 95th percentile; no error before it is known."""
    sizes = (PredictedRun(1, 0.001, 0.0015), PredictedRun(64, 1.25, 2.5))
    proven = Verdict(standing=Standing.PROVEN)
    told = describe_model(version(proven, RunCost(sizes=sizes, error=error, runs=7))).run_cost
    assert [(run.rows, run.duration.ToMicroseconds(), run.duration_p95.ToMicroseconds()) for run in told.sizes] == [
        (1, 1000, 1500), (64, 1_250_000, 2_500_000),
    ]  # fmt: skip
    assert (told.error if told.HasField("error") else None, told.runs) == (error, 7)


def test_description_without_run_cost():
    """While nothing is known, and before the model is loaded."""
    assert not describe_model(version(Verdict(standing=Standing.PROVEN))).HasField("run_cost")
    assert not describe_model(version()).HasField("run_cost")


def test_memory_of_a_loaded_model():
    """In both protocols, and how long the load took."""
    loaded = version(Verdict(standing=Standing.PROVEN))
    told = describe_model(loaded).residency
    assert (told.memory_bytes, told.device_memory_bytes, told.load_duration.ToMilliseconds()) == (5000, 700, 500)
    assert [(each.type, each.byte_size) for each in statistics(loaded).memory_usage] == [
        ("CPU", 5000), ("GPU", 700),
    ]  # fmt: skip


@pytest.mark.parametrize(("has_chat_template", "expected"), [(None, (False, False)), (True, (True, True))])
def test_description_of_a_language_model(has_chat_template, expected):
    """Its limits and its cache, and what it takes."""
    told = describe_model(language_version(has_chat_template=has_chat_template))
    found = told.generation
    assert (found.context_length, found.vocabulary_size, found.max_sequences) == (128, 32, 4)
    assert (found.cache_bytes_per_token, found.cache_bytes, found.cache_bytes_in_use) == (8, 4096, 1024)
    assert (found.has_tokenizer, found.has_chat_template) == expected
    # What the context leaves, at most.
    assert found.default_max_tokens == 128
    assert (told.batching.verdict, told.batching.max_batch_size) == (inference_pb2.Batching.VERDICT_PROVEN, 4)
    assert (list(told.inputs), told.HasField("run_cost"), told.residency.memory_bytes) == ([], False, 5000)


def test_memory_of_a_model_that_is_not_loaded():
    """It takes none."""
    told = describe_model(version()).residency
    assert (told.memory_bytes, told.HasField("load_duration")) == (0, False)
    assert not statistics(version()).memory_usage


def test_statistics_have_loads_evictions_and_cold_requests():
    """Of the model, whether or not the version is loaded."""
    for made in (version(), version(Verdict(standing=Standing.PROVEN))):
        told = statistics(made)
        assert (told.model_loads, told.model_evictions, told.cold_requests) == (3, 2, 9)

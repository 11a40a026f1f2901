"""Copies of requests to another version, and the comparison of answers."""

import numpy as np
import pytest

from inferd.batching.request import BatchTiming, InferenceRequest, InferenceResult, Outcome
from inferd.config.routing import RoutingSettings, ShadowSettings
from inferd.errors import InferenceFailedError, OverloadedError
from inferd.models import shadow as shadow_module
from inferd.models.registry import ModelRegistry
from inferd.models.router import Router
from inferd.models.shadow import ComparisonThread, Shadow, ShadowCounts
from inferd.models.states import ModelState
from inferd.models.version import ModelVersion
from tests.fakes import SCALING, Caller
from tests.unit.models.versions import version

TIMING = BatchTiming(started_at=0.0, stack_s=0.0, run_s=0.0, rows=1)


class FakeSession:
    signature = SCALING


class FakeBatcher:
    """Keeps what is submitted; the test answers it."""

    why_broken = ""
    max_rows = 64

    def __init__(self) -> None:
        self.queue = self
        self.submitted: list[InferenceRequest] = []

    def submit(self, requests) -> None:
        self.submitted.extend(requests)


class Fixture:
    """Version 1 in use, version 2 its shadow."""

    def __init__(self, share: float = 1.0, draw=lambda: 0.0) -> None:
        self.batchers = {number: FakeBatcher() for number in "12"}
        self.versions = {
            number: version("m", number, session=FakeSession(), batcher=batcher)
            for number, batcher in self.batchers.items()
        }
        self.registry = ModelRegistry()
        for each in self.versions.values():
            self.registry.add(each)
        self.counts = ShadowCounts()
        self.router = Router(self.registry, self._shadow_of)
        self.draw = draw
        self.router.change("m", RoutingSettings.model_validate({"shadow": {"version": 2, "share": share}}))

    def _shadow_of(self, target: ModelVersion, settings: ShadowSettings) -> Shadow:
        return Shadow(target, settings, counts=self.counts, compare=lambda work: work() is None, draw=self.draw)

    def send(self) -> Caller:
        caller = Caller()
        self.versions["1"].submit([caller.request])
        return caller

    def answer(self, number: str, outcome: Outcome) -> None:
        assert self.batchers[number].submitted.pop(0).reply.deliver(outcome)

    def counted(self) -> dict[str, int]:
        return {name: count for name, count in self.counts.read().get(("m", "2"), {}).items() if count}


def result(*values: float) -> InferenceResult:
    return InferenceResult({"y": np.array([values], np.float32)}, TIMING, 0.0)


@pytest.mark.parametrize("order", ["12", "21"])
@pytest.mark.parametrize(
    ("copied", "outcome"),
    [
        (result(1.0, 2.0), "equal"),
        (result(1.0, 2.0005), "equal"),
        (result(1.0, 2.1), "different"),
        (result(1.0), "different"),
        (InferenceFailedError(), "failed"),
        (OverloadedError("full", retry_after_s=1.0), "rejected"),
    ],
)
def test_outcomes(order, copied, outcome):
    """Whichever answer comes first; the caller gets the original."""
    fixture = Fixture()
    caller = fixture.send()
    outcomes = {"1": result(1.0, 2.0), "2": copied}
    for number in order:
        fixture.answer(number, outcomes[number])
    assert fixture.counted() == {outcome: 1}
    assert caller.result is outcomes["1"]


def test_copies_are_scavengers():
    """Of no principal, with the inputs and outputs of the original."""
    fixture = Fixture()
    original = fixture.send().request
    (copied,) = fixture.batchers["2"].submitted
    assert copied.priority == fixture.versions["2"].settings.queue.priority_levels + 1
    assert copied.principal.name == ""
    assert copied.inputs is original.inputs
    assert copied.outputs == original.outputs


def test_share():
    """As drawn for each request."""
    draws = iter([0.1, 0.3, 0.2, 0.9])
    fixture = Fixture(share=0.25, draw=lambda: next(draws))
    for _ in range(4):
        fixture.send()
    assert len(fixture.batchers["2"].submitted) == 2
    assert len(fixture.batchers["1"].submitted) == 4


def test_requests_to_the_shadow_itself_are_not_copied():
    """Nor those to any version once it is not ready."""
    fixture = Fixture()
    fixture.versions["2"].submit([Caller().request])
    assert len(fixture.batchers["2"].submitted) == 1
    fixture.versions["2"].mark_unloading()
    fixture.send()
    assert len(fixture.batchers["2"].submitted) == 1


def test_failed_or_cancelled_originals_are_not_compared():
    """There is nothing to compare with."""
    fixture = Fixture()
    fixture.send()
    fixture.answer("1", InferenceFailedError())
    fixture.answer("2", result(1.0))
    fixture.send().request.reply.withdraw()
    fixture.answer("2", result(1.0))
    assert fixture.counted() == {}


def test_incompatible_requests(monkeypatch):
    """Those that the shadow does not take are counted, and answered as ever."""
    fixture = Fixture()
    caller = Caller()
    caller.request.inputs = {"other": np.zeros(3, np.float32)}
    fixture.versions["1"].submit([caller.request])
    assert fixture.counted() == {"incompatible": 1}
    assert fixture.batchers["2"].submitted == []
    assert len(fixture.batchers["1"].submitted) == 1


@pytest.mark.parametrize(("limit", "value"), [("_MOST_OPEN", 2), ("_MOST_BYTES", 30)])
def test_open_copies_are_bounded(limit, value, monkeypatch):
    """In number and bytes; there is room again when copies have ended."""
    monkeypatch.setattr(shadow_module, limit, value)
    fixture = Fixture()
    for _ in range(4):
        fixture.send()
    open_ = len(fixture.batchers["2"].submitted)
    assert 0 < open_ < 4
    assert fixture.counted() == {"skipped": 4 - open_}
    fixture.answer("2", result(1.0))
    fixture.send()
    assert len(fixture.batchers["2"].submitted) == open_


def test_answers_that_wait_for_a_slow_shadow_are_bounded(monkeypatch):
    """Callers get theirs; those beyond the limit are not kept, and not compared."""
    fixture = Fixture()
    answer = result(*range(100))
    request_bytes = fixture.send().request.nbytes
    fixture.answer("1", answer)
    fixture.answer("2", answer)
    monkeypatch.setattr(shadow_module, "_MOST_BYTES", 4 * request_bytes + 2 * answer.outputs["y"].nbytes)
    callers = [fixture.send() for _ in range(3)]
    for caller in callers:
        fixture.answer("1", answer)
        assert caller.result is answer
    assert fixture.counted() == {"equal": 1, "skipped": 1}
    for _ in callers:
        fixture.answer("2", answer)
    assert fixture.counted() == {"equal": 3, "skipped": 1}
    fixture.send()
    assert len(fixture.batchers["2"].submitted) == 1


def test_shadow_follows_its_version():
    """Loaded again, the new one gets the copies; removed from the routing, none does."""
    fixture = Fixture()
    batcher = FakeBatcher()
    fixture.registry.put(version("m", "2", session=FakeSession(), batcher=batcher))
    fixture.router.refresh("m")
    fixture.send()
    assert (len(batcher.submitted), len(fixture.batchers["2"].submitted)) == (1, 0)
    fixture.router.change("m", RoutingSettings())
    fixture.send()
    assert len(batcher.submitted) == 1
    assert all(each.shadow is None for each in fixture.registry.versions("m"))


def test_shadow_that_is_not_ready_yet():
    """It gets copies from the moment it is."""
    models = ModelRegistry()
    models.add(version("m", "1", session=FakeSession(), batcher=FakeBatcher()))
    made = []
    router = Router(
        models,
        lambda target, settings: (
            made.append(target) or Shadow(target, settings, counts=ShadowCounts(), compare=lambda _: True)
        ),
    )
    router.configure("m", RoutingSettings.model_validate({"shadow": {"version": 2}}))
    assert made == []
    shadow = version("m", "2")
    models.add(shadow)
    router.refresh("m")
    router.refresh("m")
    assert made == [shadow]


def test_first_difference_is_logged(caplog):
    """Not each one, and without values."""
    fixture = Fixture()
    for _ in range(2):
        fixture.send()
        fixture.answer("1", result(1.0))
        fixture.answer("2", result(3.0))
    (message,) = caplog.messages
    assert message == (
        "answers of model m version 2 differ from those of the version in use: output y differs by more than 100 %"
    )


def test_comparison_thread_is_bounded(monkeypatch):
    """It refuses when too much waits."""
    monkeypatch.setattr(shadow_module, "_MOST_OPEN", 0)
    assert not ComparisonThread()(lambda: None)


def test_state_is_checked():
    """A version that is loading gets no copies."""
    target = version("m", "2", ModelState.LOADING)
    shadow = Shadow(target, ShadowSettings(version="2"), counts=ShadowCounts(), compare=lambda _: True)
    shadow.copy([Caller().request])

"""Model versions: properties and behavior in each state."""

from collections.abc import Sequence

import pytest

from inferd.config.settings import ModelSettings
from inferd.errors import ModelUnavailableError
from inferd.models.loaded import LoadedModel
from inferd.models.states import TRANSITIONS, ModelState, require_transition
from inferd.models.version import ModelVersion
from tests.fakes import SCALING, Caller


class FakeSession:
    signature = SCALING
    providers = ("CPUExecutionProvider",)


class FakeBatcher:
    """Records its calls."""

    why_broken = ""
    max_rows = 16

    def __init__(self) -> None:
        self.queue = self
        self.submitted: list[object] = []
        self.cancelled: list[object] = []

    def submit(self, requests: Sequence[object]) -> None:
        self.submitted.extend(requests)

    def cancel(self, request: object) -> None:
        self.cancelled.append(request)


def version(**batching: object) -> ModelVersion:
    settings = ModelSettings.model_validate({"batching": {"max_batch_size": 16, **batching}})
    return ModelVersion(name="m", version="1", settings=settings)


def ready_version(batcher: FakeBatcher | None = None, **batching: object) -> ModelVersion:
    made = warming_version(**batching)
    made.mark_ready(LoadedModel(session=FakeSession(), batcher=batcher or FakeBatcher()))
    return made


def warming_version(**batching: object) -> ModelVersion:
    made = version(**batching)
    made.advance(ModelState.VERIFYING)
    made.advance(ModelState.WARMING)
    return made


def test_loading():
    """Properties are empty, and requests are rejected."""
    loading = version()
    assert (loading.state, loading.reason, loading.signature) == (ModelState.LOADING, "", None)
    assert (loading.providers, loading.batcher, loading.max_batch_size) == ((), None, 1)
    with pytest.raises(ModelUnavailableError, match='model "m" version "1" is loading'):
        loading.require_signature()
    caller = Caller()
    loading.submit([caller.request])
    assert isinstance(caller.error, ModelUnavailableError)


def test_cancel_while_loading():
    """The request is withdrawn without an answer."""
    caller = Caller()
    version().cancel(caller.request)
    assert caller.request.reply.done()


def test_ready():
    """Requests are submitted to the batcher, and cancelled there."""
    batcher, caller = FakeBatcher(), Caller()
    ready = ready_version(batcher)
    ready.submit([caller.request])
    ready.cancel(caller.request)
    assert batcher.submitted == batcher.cancelled == [caller.request]
    assert (ready.state, ready.signature, ready.require_signature()) == (ModelState.READY, SCALING, SCALING)
    assert ready.providers == ("CPUExecutionProvider",)
    assert ready.max_batch_size == 16


def test_batch_size_without_batching():
    """It is 1, whatever the setting."""
    ready = ready_version(enabled=False)
    assert ready.max_batch_size == 1


def test_failed():
    """The reason is kept for the operator."""
    failed = version()
    failed.mark_failed("no such operator")
    assert (failed.state, failed.reason) == (ModelState.FAILED, "no such operator")


def test_unloading():
    """The batcher stays, and rejects late requests itself, until the version is gone."""
    unloading, batcher, caller = warming_version(), FakeBatcher(), Caller()
    loaded = LoadedModel(session=FakeSession(), batcher=batcher)
    unloading.mark_ready(loaded)
    assert unloading.mark_unloading() is loaded
    assert unloading.state is ModelState.UNLOADING
    assert unloading.batcher is batcher
    unloading.mark_unavailable("unloaded")
    assert (unloading.state, unloading.reason) == (ModelState.UNAVAILABLE, "unloaded")
    assert (unloading.batcher, unloading.signature, unloading.max_batch_size) == (None, None, 1)
    unloading.submit([caller.request])
    assert isinstance(caller.error, ModelUnavailableError)


def test_failed_reload_keeps_serving():
    """With the reason beside it."""
    ready = ready_version()
    ready.reload_failed("it is damaged")
    assert (ready.state, ready.reason) == (ModelState.READY, "loading it again failed: it is damaged")


def test_rejects_invalid_transitions():
    """The version's state does not change."""
    ready = ready_version()
    with pytest.raises(ValueError, match="a model that is ready cannot become failed"):
        ready.mark_failed("too late")
    assert (ready.state, ready.reason) == (ModelState.READY, "")


ALLOWED = {
    (ModelState.LOADING, ModelState.VERIFYING),
    (ModelState.VERIFYING, ModelState.WARMING),
    (ModelState.WARMING, ModelState.READY),
    (ModelState.READY, ModelState.UNLOADING),
    (ModelState.UNLOADING, ModelState.UNAVAILABLE),
    # A load that fails or is cancelled.
    (ModelState.LOADING, ModelState.FAILED),
    (ModelState.VERIFYING, ModelState.FAILED),
    (ModelState.WARMING, ModelState.FAILED),
    (ModelState.LOADING, ModelState.UNAVAILABLE),
    (ModelState.VERIFYING, ModelState.UNAVAILABLE),
    (ModelState.WARMING, ModelState.UNAVAILABLE),
}


@pytest.mark.parametrize("current", ModelState)
@pytest.mark.parametrize("following", ModelState)
def test_transitions(current, following):
    """Down the stages of a load, and out of it; all others are errors."""
    if (current, following) in ALLOWED:
        require_transition(current, following)
    else:
        with pytest.raises(ValueError, match=f"is {current.value} cannot become {following.value}"):
            require_transition(current, following)


def test_table_of_transitions_is_complete():
    """It has every state."""
    assert set(TRANSITIONS) == set(ModelState)


def test_version_whose_session_runs_nothing():
    """It stays READY and does not accept requests; the reason is there while that is so."""
    batcher = FakeBatcher()
    broken = ready_version(batcher)
    assert (broken.accepts_requests, broken.reason) == (True, "")
    batcher.why_broken = "its device failed"
    assert (broken.state, broken.accepts_requests) == (ModelState.READY, False)
    assert broken.reason == "its device failed"


def test_batch_size_that_there_is_memory_for():
    """Not the configured one while there is not enough for that."""
    batcher = FakeBatcher()
    small = ready_version(batcher)
    assert small.max_batch_size == 16
    batcher.max_rows = 4
    assert small.max_batch_size == 4

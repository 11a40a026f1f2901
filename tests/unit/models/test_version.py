"""What a version shows and does in each state."""

from collections.abc import Sequence

import pytest

from inferd.config.settings import ModelSettings
from inferd.errors import ModelUnavailableError
from inferd.models.version import LoadedModel, ModelState, ModelVersion
from tests.fakes import SCALING, Caller


class FakeSession:
    signature = SCALING
    providers = ("CPUExecutionProvider",)


class FakeBatcher:
    """Remembers what it is given."""

    def __init__(self) -> None:
        self.submitted: list[object] = []
        self.cancelled: list[object] = []

    def submit(self, requests: Sequence[object]) -> None:
        self.submitted.extend(requests)

    def cancel(self, request: object) -> None:
        self.cancelled.append(request)


def version(**batching: object) -> ModelVersion:
    settings = ModelSettings.model_validate({"batching": {"max_batch_size": 16, **batching}})
    return ModelVersion(name="m", version="1", settings=settings)


def test_before_it_is_read_there_is_nothing_to_show():
    """And a request hears that it is loading."""
    loading = version()
    assert (loading.state, loading.reason, loading.signature) == (ModelState.LOADING, "", None)
    assert (loading.providers, loading.batcher, loading.max_batch_size) == ((), None, 1)
    with pytest.raises(ModelUnavailableError, match='model "m" version "1" is loading'):
        loading.require_signature()
    caller = Caller()
    loading.submit([caller.request])
    assert isinstance(caller.error, ModelUnavailableError)


def test_a_request_to_what_is_not_read_can_be_cancelled():
    """It is withdrawn, and nothing is delivered."""
    caller = Caller()
    version().cancel(caller.request)
    assert caller.request.reply.done()


def test_when_ready_requests_go_to_the_batcher():
    """To submit as to cancel."""
    ready, batcher, caller = version(), FakeBatcher(), Caller()
    ready.load(LoadedModel(session=FakeSession(), batcher=batcher, memory_bytes=0))
    ready.submit([caller.request])
    ready.cancel(caller.request)
    assert batcher.submitted == batcher.cancelled == [caller.request]
    assert (ready.state, ready.signature, ready.require_signature()) == (ModelState.READY, SCALING, SCALING)
    assert ready.providers == ("CPUExecutionProvider",)
    assert ready.max_batch_size == 16


def test_without_batching_a_batch_is_one_row():
    """However large the setting."""
    ready = version(enabled=False)
    ready.load(LoadedModel(session=FakeSession(), batcher=FakeBatcher(), memory_bytes=0))
    assert ready.max_batch_size == 1


def test_a_failure_has_a_reason():
    """For the operator."""
    failed = version()
    failed.fail("no such operator")
    assert (failed.state, failed.reason) == (ModelState.FAILED, "no such operator")


def test_what_was_ready_can_still_be_looked_at_while_it_unloads():
    """Requests that had seen it READY reach the batcher, which refuses them itself."""
    unloading, batcher = version(), FakeBatcher()
    loaded = LoadedModel(session=FakeSession(), batcher=batcher, memory_bytes=0)
    unloading.load(loaded)
    assert unloading.unload() is loaded
    assert unloading.state is ModelState.UNLOADING
    assert unloading.batcher is batcher


def test_states_do_not_go_back():
    """The table holds for the object as well."""
    ready = version()
    ready.load(LoadedModel(session=FakeSession(), batcher=FakeBatcher(), memory_bytes=0))
    with pytest.raises(ValueError, match="a model that is ready cannot become failed"):
        ready.fail("too late")
    assert (ready.state, ready.reason) == (ModelState.READY, "")

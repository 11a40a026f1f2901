"""Waiting for a server: timeout, intervals, and errors."""

import asyncio
import itertools
import threading
from itertools import pairwise

import grpc
import pytest

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    ModelState,
    NotFound,
    PermissionDenied,
    Unavailable,
    messages,
)
from inferd.client.base import ReadinessWait, why_model_not_ready, why_server_not_ready
from tests.patience import PATIENCE_S
from tests.unit.client.fake_service import FakeService, serving


class Clock:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_intervals_grow_to_a_second():
    """Short at first."""
    wait = ReadinessWait(None, Clock())
    pauses = [wait.pause_s() for _ in range(20)]
    assert pauses[0] == 0.05
    assert all(before <= after <= 1.5 * before for before, after in pairwise(pauses))
    assert pauses[-1] == 1.0
    assert wait.left_s() is None


def test_ends_at_timeout():
    """The error has what was waited for, and how long."""
    clock = Clock()
    wait = ReadinessWait(2.0, clock)
    wait.not_ready('model "m" is LOADING')
    clock.now += 1.98
    assert wait.left_s() == pytest.approx(0.02)
    assert wait.pause_s() == pytest.approx(0.02)
    clock.now += 5
    assert wait.left_s() == 0
    with pytest.raises(DeadlineExceeded, match='not ready within 2 s: model "m" is LOADING'):
        wait.pause_s()


def test_last_error_is_the_cause():
    """With its request's id, unless it is only a timeout."""
    clock = Clock()
    wait = ReadinessWait(1.0, clock)
    wait.not_ready(NotFound('model "m" is not known', request_id="r"))
    wait.not_ready(DeadlineExceeded("Deadline Exceeded"))
    clock.now += 1
    with pytest.raises(DeadlineExceeded, match='model "m" is not known') as caught:
        wait.pause_s()
    assert isinstance(caught.value.__cause__, NotFound)
    assert caught.value.request_id == "r"


def test_returns_at_once_if_ready(call, server):
    """A server, and a model."""
    assert call(server.address, "wait_until_ready") is None
    assert call(server.address, "wait_until_ready", "digits", version="1") is None


def test_raises_permanent_errors_at_once(call):
    """For example a missing permission."""
    service = FakeService()
    service.GetModel = lambda request, context: context.abort(grpc.StatusCode.PERMISSION_DENIED, "not for you")
    with serving(service) as server, pytest.raises(PermissionDenied, match="not for you"):
        call(server.address, "wait_until_ready", "digits")


def test_error_has_state():
    """The state of the model or of the server's health, and its reason."""
    described = pb.Model(name="m", version="3", state=pb.Model.STATE_FAILED, reason="not an ONNX file")
    assert why_model_not_ready(messages.model_info(described)) == 'model "m" version 3 is FAILED: not an ONNX file'
    described = pb.Model(name="m", version="3", state=pb.Model.STATE_LOADING)
    assert why_model_not_ready(messages.model_info(described)) == 'model "m" version 3 is LOADING'
    described.state = pb.Model.STATE_READY
    assert why_model_not_ready(messages.model_info(described)) == ""
    assert why_server_not_ready(b"\x08\x02") == "the server's health is NOT_SERVING"
    assert why_server_not_ready(b"\x08\x01") == ""


def test_error_has_name_and_address(call, monkeypatch):
    """Reading this test's clock advances it, so it ends after two attempts."""

    class QuickWait(ReadinessWait):
        def __init__(self, timeout_s: float) -> None:
            super().__init__(timeout_s, itertools.count(0, 10).__next__)

    monkeypatch.setattr("inferd.client.sync.ReadinessWait", QuickWait)
    monkeypatch.setattr("inferd.client.aio.ReadinessWait", QuickWait)
    with serving(FakeService()) as server:
        with pytest.raises(DeadlineExceeded, match='not ready within 40 s: model "other" is not known') as caught:
            call(server.address, "wait_until_ready", "other", timeout_s=40)
        assert isinstance(caught.value.__cause__, NotFound)
        server.drain()
        with pytest.raises(DeadlineExceeded, match="not ready within 40 s: the server's health is NOT_SERVING"):
            call(server.address, "wait_until_ready", timeout_s=40)


def test_waits_for_models(call):
    """Loading ones, and ones that do not exist yet."""
    asked = []
    service = FakeService()

    def later(request, context):
        asked.append(request.model)
        if len(asked) == 1:
            context.abort(grpc.StatusCode.NOT_FOUND, "not known")
        state = pb.Model.STATE_LOADING if len(asked) == 2 else pb.Model.STATE_READY
        return pb.GetModelResponse(model=pb.Model(name="m", version="1", state=state))

    service.GetModel = later
    with serving(service) as server:
        call(server.address, "wait_until_ready", "m")
    assert asked == ["m"] * 3


def test_models_on_demand(call):
    """They accept requests, and are loaded to be described only if that is asked for."""
    with serving(FakeService(pb.Model(name="m", version="1", state=pb.Model.STATE_ON_DEMAND))) as server:
        call(server.address, "wait_until_ready", "m")
        described = call(server.address, "model", "m")
        assert (described.state, described.inputs) == (ModelState.ON_DEMAND, ())
        loaded = call(server.address, "model", "m", load=True)
        assert (loaded.state, len(loaded.inputs)) == (ModelState.READY, 1)
        with pytest.raises(TypeError, match="load: expected"):
            call(server.address, "model", "m", load="yes")


@pytest.mark.parametrize("method", ["wait_until_ready", "infer", "models", "stream"])
def test_client_may_start_before_server(tmp_path, method):
    """With wait_for_ready, calls wait for the connection; they have failed to connect before the server starts."""
    address = f"unix:{tmp_path / 'server'}"
    tried = threading.Event()
    arguments = {"infer": ["m", {"x": 1}], "stream": ["m", [{"x": 1}]]}.get(method, [])
    named = {} if method == "wait_until_ready" else {"wait_for_ready": True}

    def connect() -> object:
        with Client(address, timeout_s=PATIENCE_S) as client:
            client._channel.subscribe(lambda state: state is grpc.ChannelConnectivity.TRANSIENT_FAILURE and tried.set())
            result = getattr(client, method)(*arguments, **named)
            return list(result) if method == "stream" else result

    outcome: list[object] = []
    caller = threading.Thread(target=lambda: outcome.append(connect()))
    caller.start()
    assert tried.wait(PATIENCE_S)
    with serving(FakeService(), address=address):
        caller.join(PATIENCE_S)
        assert len(outcome) == 1


@pytest.mark.parametrize("coalesce", [False, True])
def test_tasks_may_start_before_server(tmp_path, coalesce):
    """The same with asyncio, and as a setting of the client."""
    address = f"unix:{tmp_path / 'server'}"

    async def run():
        async with AsyncClient(address, timeout_s=PATIENCE_S, wait_for_ready=True, coalesce=coalesce) as client:
            calls = [
                asyncio.create_task(call)
                for call in (client.infer("m", {"x": 1}), client.wait_until_ready("digits"), client.models())
            ]
            while (state := client._channel.get_state()) is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                await client._channel.wait_for_state_change(state)
            with serving(FakeService(), address=address):
                await asyncio.gather(*calls)

    asyncio.run(run())


def test_waiting_is_off_by_default(call):
    """A call without a server fails at once, also if it overrides the client's setting, and so does readiness."""
    with pytest.raises(Unavailable):
        call("127.0.0.1:1", "models", settings={"retry": None})
    with pytest.raises(Unavailable):
        call("127.0.0.1:1", "models", settings={"retry": None, "wait_for_ready": True}, wait_for_ready=False)
    with pytest.raises(Unavailable):
        call(
            "127.0.0.1:1",
            "infer",
            "m",
            {},
            settings={"retry": None, "wait_for_ready": True, "coalesce": True},
            wait_for_ready=False,
        )
    assert not call("127.0.0.1:1", "is_ready", settings={"wait_for_ready": True})


def test_waiting_ends_at_timeout(call):
    """The call is timed out."""
    for method in ("models", "wait_until_ready"):
        with pytest.raises(DeadlineExceeded):
            call("127.0.0.1:1", method, settings={"wait_for_ready": True}, timeout_s=0.05)

"""Waiting for a server: for how long, how often, and what is said in the end."""

import asyncio
import itertools
import threading
from itertools import pairwise

import grpc
import pytest

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.client import AsyncClient, Client, DeadlineExceeded, NotFound, PermissionDenied, Unavailable, messages
from inferd.client.base import Patience, model_obstacle, server_obstacle
from tests.patience import PATIENCE_S
from tests.unit.client.fake_service import FakeService, serving


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_pauses_grow_to_a_second():
    """It begins to ask soon, and never asks in a hurry for long."""
    patience = Patience(None, Clock())
    pauses = [patience.pause_s() for _ in range(20)]
    assert pauses[0] == 0.05
    assert all(before <= after <= 1.5 * before for before, after in pairwise(pauses))
    assert pauses[-1] == 1.0
    assert patience.left_s() is None


def test_it_ends_in_time():
    """Pauses end with the time; then the error says what was waited for and for how long."""
    clock = Clock()
    patience = Patience(2.0, clock)
    patience.not_ready('model "m" is LOADING')
    clock.now += 1.98
    assert patience.left_s() == pytest.approx(0.02)
    assert patience.pause_s() == pytest.approx(0.02)
    clock.now += 5
    assert patience.left_s() == 0
    with pytest.raises(DeadlineExceeded, match='not ready within 2 s: model "m" is LOADING'):
        patience.pause_s()


def test_the_last_error_is_the_cause():
    """With its request's id, unless it only says that the time was up."""
    clock = Clock()
    patience = Patience(1.0, clock)
    patience.not_ready(NotFound('model "m" is not known', request_id="r"))
    patience.not_ready(DeadlineExceeded("Deadline Exceeded"))
    clock.now += 1
    with pytest.raises(DeadlineExceeded, match='model "m" is not known') as caught:
        patience.pause_s()
    assert isinstance(caught.value.__cause__, NotFound)
    assert caught.value.request_id == "r"


def test_what_is_ready_is_not_waited_for(call, server):
    """A server, and a model, that are ready."""
    assert call(server.address, "wait_until_ready") is None
    assert call(server.address, "wait_until_ready", "digits", version="1") is None


def test_what_waiting_does_not_mend_is_told_at_once(call):
    """A caller who may not ask is not kept waiting."""
    service = FakeService()
    service.GetModel = lambda request, context: context.abort(grpc.StatusCode.PERMISSION_DENIED, "not for you")
    with serving(service) as server, pytest.raises(PermissionDenied, match="not for you"):
        call(server.address, "wait_until_ready", "digits")


def test_what_stands_in_the_way():
    """The state of the model or of the server's health, and the reason for it."""
    described = pb.Model(name="m", version="3", state=pb.Model.STATE_FAILED, reason="not an ONNX file")
    assert model_obstacle(messages.model_info(described)) == 'model "m" version 3 is FAILED: not an ONNX file'
    described = pb.Model(name="m", version="3", state=pb.Model.STATE_LOADING)
    assert model_obstacle(messages.model_info(described)) == 'model "m" version 3 is LOADING'
    described.state = pb.Model.STATE_READY
    assert model_obstacle(messages.model_info(described)) == ""
    assert server_obstacle(b"\x08\x02") == "the server's health is NOT_SERVING"
    assert server_obstacle(b"\x08\x01") == ""


def test_it_says_what_it_waited_for(call, monkeypatch):
    """The time of this test passes by being asked for, and so ends after two attempts."""

    class QuickPatience(Patience):
        def __init__(self, timeout_s: float) -> None:
            super().__init__(timeout_s, itertools.count(0, 10).__next__)

    monkeypatch.setattr("inferd.client.sync.Patience", QuickPatience)
    monkeypatch.setattr("inferd.client.aio.Patience", QuickPatience)
    with serving(FakeService()) as server:
        with pytest.raises(DeadlineExceeded, match='not ready within 40 s: model "other" is not known') as caught:
            call(server.address, "wait_until_ready", "other", timeout_s=40)
        assert isinstance(caught.value.__cause__, NotFound)
        server.drain()
        with pytest.raises(DeadlineExceeded, match="not ready within 40 s: the server's health is NOT_SERVING"):
            call(server.address, "wait_until_ready", timeout_s=40)


def test_models_become_ready(call):
    """One that is loading, and one that is not there yet, are waited for."""
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


@pytest.mark.parametrize("method", ["wait_until_ready", "infer", "models", "stream"])
def test_a_client_may_start_before_its_server(tmp_path, method):
    """Calls wait for the connection if they are told to; they have failed to connect before the server starts."""
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
def test_tasks_may_start_before_their_server(tmp_path, coalesce):
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
    """A call without a server fails at once, also in a client that waits if the call says so, and so does readiness."""
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


def test_waiting_ends_with_the_time(call):
    """Without a server in time, a call that waits is out of time."""
    for method in ("models", "wait_until_ready"):
        with pytest.raises(DeadlineExceeded):
            call("127.0.0.1:1", method, settings={"wait_for_ready": True}, timeout_s=0.05)

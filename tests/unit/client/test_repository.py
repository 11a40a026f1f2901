"""Loading, unloading and listing models with both clients, against a fake server."""

import json

import grpc
import pytest

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.client import IndexEntry, Internal, ModelState, Unavailable
from tests.unit.client.fake_service import BROKEN, DIGITS, FakeService

FILES = {"1/model.onnx": b"\x08\x0a", "1/model.onnx.data": b""}


@pytest.fixture
def service() -> FakeService:
    return FakeService(DIGITS, BROKEN)


def test_load(call, server, service):
    """The versions of the model, as `models` describes them; everything is sent."""
    (model,) = call(server.address, "load_model", "digits")
    assert (model.name, model.version, model.state) == ("digits", "1", ModelState.READY)
    call(server.address, "load_model", "digits", version="1", config={"max_batch_size": 8}, files=FILES)
    call(server.address, "load_model", "digits", config="{}")
    plain, full, text = service.commands
    assert plain == pb.LoadModelRequest(model="digits")
    assert (full.model, full.version, dict(full.files)) == ("digits", "1", FILES)
    assert json.loads(full.config) == {"max_batch_size": 8}
    assert text.config == "{}"


def test_unload(call, server, service):
    """All versions, or one."""
    assert call(server.address, "unload_model", "digits") is None
    call(server.address, "unload_model", "digits", version="1")
    assert service.commands == [
        pb.UnloadModelRequest(model="digits"),
        pb.UnloadModelRequest(model="digits", version="1"),
    ]


def test_index(call, server, service):
    """With models that were never loaded, or those that serve."""
    assert call(server.address, "repository_index") == [
        IndexEntry(name="digits", version="1", state=ModelState.READY, reason=""),
        IndexEntry(name="broken", version="3", state=ModelState.FAILED, reason="not an ONNX file"),
        IndexEntry(name="new", version="", state=ModelState.UNAVAILABLE, reason=""),
    ]
    assert [entry.name for entry in call(server.address, "repository_index", ready=True)] == ["digits"]


@pytest.mark.parametrize("method", ["load_model", "unload_model"])
def test_errors_are_typed(call, server, service, method):
    """A failed load, and a server whose models are not controlled by calls, which is not asked again."""
    service.refusal = (grpc.StatusCode.INTERNAL, "failed to load 'digits'", "MODEL_LOAD_FAILED")
    with pytest.raises(Internal, match="failed to load 'digits'") as failed:
        call(server.address, method, "digits")
    assert failed.value.reason == "MODEL_LOAD_FAILED"
    service.refusal = (grpc.StatusCode.UNAVAILABLE, "not allowed", "MODEL_CONTROL_DISABLED")
    with pytest.raises(Unavailable, match="not allowed"):
        call(server.address, method, "digits")
    assert len(service.commands) == 2


@pytest.mark.parametrize(
    ("method", "arguments", "error", "text"),
    [
        ("load_model", {"name": 1}, TypeError, "name: expected a str"),
        ("load_model", {"name": "m", "version": 1}, TypeError, "version: expected a str"),
        ("load_model", {"name": "m", "config": 1}, TypeError, "config: expected a str or a mapping, got int"),
        ("load_model", {"name": "m", "config": {"a": b""}}, TypeError, "config: expected what can be written as JSON"),
        (
            "load_model",
            {"name": "m", "config": {"a": float("nan")}},
            ValueError,
            "config: expected what can be written",
        ),
        ("load_model", {"name": "m", "files": [b""]}, TypeError, "files: expected a mapping of bytes by VERSION/NAME"),
        ("load_model", {"name": "m", "files": {1: b""}}, TypeError, "files: expected a str as path, got int"),
        ("load_model", {"name": "m", "files": {"1/a": "x"}}, TypeError, 'files: expected bytes for "1/a", got str'),
        ("unload_model", {"name": None}, TypeError, "name: expected a str"),
        ("repository_index", {"ready": "yes"}, TypeError, "ready: expected True or False"),
    ],
)
def test_refuses_arguments(call, server, method, arguments, error, text):
    """By name, before anything is sent."""
    with pytest.raises(error, match=text):
        call(server.address, method, **arguments)

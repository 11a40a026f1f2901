"""Models that are loaded and unloaded by calls, over real sockets."""

import json
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from inferd.client import (
    Cancelled,
    Client,
    IndexEntry,
    Internal,
    InvalidInput,
    ModelState,
    NotFound,
    Overloaded,
    Unavailable,
)
from tests import onnx_models, onnx_traps
from tests.patience import PATIENCE_S, eventually
from tests.server import BIN, serving

#: Of a message; larger than any model here.
_MAX_BYTES = 1 << 20

_EXPLICIT = ("--set", "repository.mode=explicit", "--set", f"server.max_message_bytes={_MAX_BYTES}")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A model with two versions, a broken one, and one whose file hangs the process that opens it."""
    folder = tmp_path_factory.mktemp("models")
    for version in ("1", "2"):
        onnx_models.save(onnx_models.linear(), folder / "linear" / version / "model.onnx")
    onnx_models.save(onnx_traps.hangs_when_opened(), folder / "hanging" / "1" / "model.onnx")
    (folder / "broken" / "1").mkdir(parents=True)
    (folder / "broken" / "1" / "model.onnx").write_bytes(b"not a model")
    return folder


@pytest.fixture(scope="module")
def server(repository):
    with serving(repository, *_EXPLICIT) as running:
        yield running


@pytest.fixture
def client(server):
    """A client of a server that has loaded nothing."""
    with Client(server.grpc, timeout_s=PATIENCE_S, retry=None) as connected:
        for name in {entry.name for entry in connected.repository_index() if entry.version}:
            connected.unload_model(name)
        yield connected


def _states(client, name):
    return {entry.version: entry.state for entry in client.repository_index() if entry.name == name}


def _infer(client, version=""):
    result = client.infer("linear", {"x": np.ones((1, 3), np.float32)}, version=version)
    return result.version


def test_load_and_unload(client):
    """All versions, or single ones; each load and unload has taken effect when its call ends."""
    versions = [(model.version, model.state) for model in client.load_model("linear")]
    assert versions == [("2", ModelState.READY), ("1", ModelState.READY)]
    assert _infer(client) == "2"
    client.unload_model("linear", version="2")
    assert _infer(client) == "1"
    assert _states(client, "linear") == {"2": ModelState.UNAVAILABLE, "1": ModelState.READY}
    client.unload_model("linear")
    with pytest.raises(Unavailable):
        _infer(client)
    assert client.load_model("linear", version="02")
    assert _infer(client) == "2"
    assert client.repository_index(ready=True) == [
        IndexEntry(name="linear", version="2", state=ModelState.READY, reason="")
    ]


def test_failures_are_told_to_the_caller(client):
    """And to later readers of the index."""
    with pytest.raises(Internal, match="failed to load 'broken', no version is available: ") as failed:
        client.load_model("broken")
    assert failed.value.reason == "MODEL_LOAD_FAILED"
    (broken,) = (entry for entry in client.repository_index() if entry.name == "broken")
    assert broken.state is ModelState.FAILED
    assert broken.reason
    with pytest.raises(Internal, match="failed to load 'absent', failed to poll from model repository"):
        client.load_model("absent")
    with pytest.raises(NotFound, match="absent"):
        client.unload_model("absent")
    with pytest.raises(InvalidInput, match="Invalid config override: "):
        client.load_model("linear", config="{")


def test_overrides_hold_for_one_load(client):
    """Of the configuration, and of the files, which may be those of a model that is in no repository."""
    client.load_model("linear", config={"max_batch_size": 3, "dynamic_batching": {}})
    assert client.model("linear").batching.max_batch_size == 3
    client.load_model("linear")
    assert client.model("linear").batching.max_batch_size != 3
    content = onnx_models.linear().SerializeToString()
    (sent,) = client.load_model(
        "sent", config={"max_batch_size": 2, "dynamic_batching": {}}, files={"7/model.onnx": content}
    )
    assert (sent.version, sent.state, sent.batching.max_batch_size) == ("7", ModelState.READY, 2)
    result = client.infer("sent", {"x": np.ones((1, 3), np.float32)})
    np.testing.assert_array_equal(result["y"], [[3, 3, 3]])


def test_files_within_the_limit_of_messages(client):
    """The error names the setting."""
    with pytest.raises(Overloaded, match=r"larger than max .* its server\.max_message_bytes"):
        client.load_model("linear", config="{}", files={"1/model.onnx": bytes(_MAX_BYTES)})


def test_overrides_name_no_other_files(client, tmp_path):
    """Neither to write nor to read, and no libraries."""
    for path in (f"{tmp_path}/a", "../1/a", "1/../../../a", "1/.a"):
        with pytest.raises(InvalidInput, match="expected VERSION/NAME"):
            client.load_model("linear", config="{}", files={path: b"a"})
    assert list(tmp_path.iterdir()) == []
    labels = {"name": "y", "data_type": "TYPE_FP32", "dims": [3], "label_filename": "/etc/passwd"}
    with pytest.raises(InvalidInput, match="label_filename: expected a file in the directory of the model"):
        client.load_model("linear", config={"output": [labels]})
    libraries = {"model_operations": {"op_library_filename": ["1/evil.so"]}}
    with pytest.raises(Internal, match="custom_ops"):
        client.load_model("linear", config=libraries, files={"1/evil.so": b"", "1/model.onnx": b""})


def test_log_says_who_did_what(server, client):
    """Without authentication everybody is anonymous."""
    client.load_model("linear", version="1", metadata={"x-request-id": "the load"})
    client.unload_model("linear", metadata={"x-request-id": "the unload"})
    for action, version in (("load", "1"), ("unload", "")):
        line = server.wait_event("model control", request_id=f"the {action}")
        assert {
            "action": action,
            "principal": "anonymous",
            "model": "linear",
            "version": version,
        }.items() <= line.items()
        assert line["outcome"] == "OK"


def test_command_line(server, client, tmp_path):
    """Load, list, index and unload."""
    (tmp_path / "config.pbtxt").write_text("max_batch_size: 5 dynamic_batching {}")
    onnx_models.save(onnx_models.linear(), tmp_path / "new.onnx")

    def run(*arguments):
        command = [BIN / "inferd", "models", *arguments, "--json", "--address", server.grpc]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    (loaded,) = run(
        *("load", "linear", "--config", tmp_path / "config.pbtxt", "--file", f"9/model.onnx={tmp_path / 'new.onnx'}")
    )
    assert (loaded["version"], loaded["batching"]["max_batch_size"]) == ("9", 5)
    assert [each["version"] for each in run("index", "--ready")] == ["9"]
    assert run("unload", "linear") == {"unloaded": "linear", "version": ""}
    assert run("index", "--ready") == []


def test_other_modes_refuse(repository):
    """With a status that is final, so that clients do not repeat the call; the index works in each mode."""
    with serving(repository / "linear") as running, Client(running.grpc, timeout_s=PATIENCE_S) as client:
        for command in (client.load_model, client.unload_model):
            with pytest.raises(Unavailable, match="explicit model load / unload is not allowed") as refused:
                command("linear")
            assert refused.value.reason == "MODEL_CONTROL_DISABLED"
        assert _states(client, "linear") == {"2": ModelState.READY, "1": ModelState.READY}
        running.stop()
        calls = [line["method"].rpartition("/")[2] for line in running.events("access")]
        assert calls == ["LoadModel", "UnloadModel", "IndexModels"]


def test_gives_up_loads_whose_calls_end(repository):
    """A call that ends gives its load up, and so does a server that stops: it does not wait for the load."""
    with ThreadPoolExecutor() as threads, serving(repository, *_EXPLICIT) as running:
        with Client(running.grpc, timeout_s=PATIENCE_S, retry=None) as observer:

            def reaches(state):
                eventually(lambda: _states(observer, "hanging") == {"1": state}, f"hanging is {state}")

            client = Client(running.grpc)
            load = threads.submit(client.load_model, "hanging")
            reaches(ModelState.LOADING)
            client.close()
            with pytest.raises(Cancelled):
                load.result(PATIENCE_S)
            reaches(ModelState.UNAVAILABLE)
            load = threads.submit(observer.load_model, "hanging")
            reaches(ModelState.LOADING)
            running.process.send_signal(signal.SIGTERM)
            with pytest.raises(Unavailable, match="draining"):
                load.result(PATIENCE_S)
        assert running.wait() == 0

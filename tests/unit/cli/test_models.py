"""``inferd models`` against a fake server."""

import json

from inferd._generated.inferd.v1 import inference_pb2 as pb
from tests.unit.client.fake_service import DIGITS


def test_the_table_tells_what_each_model_is(inferd, server):
    """Name, version, state, tensors and batching of each; the reason of a failure; no colours without a terminal."""
    ended = inferd("models", "-a", server.address)
    head, _, digits, broken = (line.split("  ") for line in ended.out.splitlines())
    assert ended.exit_code == 0
    assert "\x1b" not in ended.out
    assert [cell.strip() for cell in head if cell] == [
        "NAME", "VERSION", "STATE", "INPUTS", "OUTPUTS", "BATCHING", "REASON",
    ]  # fmt: skip
    assert [cell.strip() for cell in digits if cell.strip()] == [
        "digits", "1", "READY", "X FP32 [batch, 64]", "label INT64 [batch]", "up to 64 rows, waits 1.5 ms",
    ]  # fmt: skip
    assert [cell.strip() for cell in broken if cell.strip()] == ["broken", "3", "FAILED", "not an ONNX file"]


def test_open_dimensions_and_models_without_batching(inferd, server, service):
    """A dimension without a name is a question mark; batching may be off; nothing failed, so there is no reason."""
    service.models = [
        pb.Model(
            name="m", version="1", state=pb.Model.STATE_READY,
            inputs=[
                pb.TensorInfo(name="a", datatype=pb.DATA_TYPE_FP32, shape=[-1, 2]),
                pb.TensorInfo(name="b", datatype=pb.DATA_TYPE_BYTES, shape=[1]),
            ],
        )
    ]  # fmt: skip
    out = inferd("models", "-a", server.address).out
    assert "a FP32 [?, 2]" in out
    assert "b BYTES [1]" in out
    assert "off" in out
    assert "REASON" not in out


def test_lines_are_not_cut_in_a_pipe(inferd, server, service, monkeypatch):
    """Output that goes to another program is as wide as it needs to be, whatever the terminal."""
    monkeypatch.setenv("COLUMNS", "20")
    service.models = [pb.Model(name="m" * 200)]
    assert "m" * 200 in inferd("models", "-a", server.address).out


def test_json_for_programs(inferd, server, service):
    """The JSON has the fields of the client's descriptions."""
    service.models = [DIGITS]
    (model,) = json.loads(inferd("models", "--json", "-a", server.address).out)
    assert (model["name"], model["state"]) == ("digits", "READY")
    assert model["inputs"] == [{"name": "X", "datatype": "FP32", "shape": ["batch", 64], "batch_axis": 0}]
    assert model["batching"]["max_batch_size"] == 64


def test_a_server_without_models(inferd, server, service):
    """An empty list is said in words."""
    service.models = []
    assert inferd("models", "-a", server.address).out == "The server has no models.\n"


def test_nobody_there(inferd):
    """A server that cannot be reached is one line on stderr, and exit code 1."""
    ended = inferd("models", "-a", "127.0.0.1:1")
    assert ended.exit_code == 1
    assert ended.err.startswith("inferd: UNAVAILABLE: ")
    assert ended.err.count("\n") == 1

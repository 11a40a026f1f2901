"""Memory of models goes back to the system when they are unloaded, and that of large batches when they are idle."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from inferd.client import Client
from tests import onnx_models
from tests.load import MIB
from tests.patience import eventually
from tests.server import serving

#: A table of 48 MB.
ENTRIES, WIDTH = 187_500, 64
MODEL_BYTES = ENTRIES * WIDTH * 4
#: Growth that is left is below this, however often models have come and gone.
MOST_LEFT_BYTES = MODEL_BYTES // 5

#: A hundredth of the model left by each of them would be too much.
LOADS = 20
#: Loads of the other kinds, of which each would leave a tenth of `MOST_LEFT_BYTES` at most.
OTHER_LOADS = 10
SIDE_BY_SIDE = 3

#: Two arrays of 64 MiB exist during a run of so many rows.
LARGE_ROWS = 64 * MIB // (WIDTH * 4)
LARGE = {"x": np.zeros(LARGE_ROWS, np.int32)}
SMALL = {"x": np.zeros(1, np.int32)}


def table() -> onnx.ModelProto:
    """Build ``y = sum(exp(table[x]))`` on INT32 [rows]: little work for its size, and large arrays in between."""
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["entries"]),
        helper.make_node("Exp", ["entries"], ["powers"]),
        helper.make_node("ReduceSum", ["powers", "axis"], ["y"], keepdims=0),
    ]
    constants = [
        numpy_helper.from_array(np.zeros((ENTRIES, WIDTH), np.float32), "table"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.INT32, ["rows"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows"])
    graph = helper.make_graph(nodes, "table", [x], [y], constants)
    opsets = [helper.make_opsetid("", onnx_models.OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=onnx_models.IR_VERSION)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Nothing is loaded. Requests run alone, so that loads have nothing to verify and only their memory counts."""
    root = tmp_path_factory.mktemp("models")
    model = table()
    first = onnx_models.save(model, root / "first" / "1" / "model.onnx")
    for name in ("second", "third", "idle"):
        (root / name).mkdir()
        (root / name / "1").symlink_to(first.parent)
    (root / "external" / "1").mkdir(parents=True)
    onnx.save(model, root / "external" / "1" / "model.onnx", save_as_external_data=True, location="weights")
    settings = {"batch_axes": "none", "runtime": {"verdict_cache": None, "shrink_after_s": 0}}
    for folder in root.iterdir():
        settings["runtime"]["shrink_after_s"] = 0.1 if folder.name == "idle" else 0
        (folder / "model.yaml").write_text(yaml.safe_dump(settings))
    flags = ("--model-control-mode", "explicit", "--set", f"repository.parallel_loads={SIDE_BY_SIDE}")
    with serving(root, *flags, "--set", "repository.probe=false", "--set", "log.access=false") as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with Client(server.grpc) as connected:
        yield connected


@pytest.fixture(scope="module")
def resident_at_start(server, client):
    """The resident set without models, once everything that a load and a request need has been imported."""
    client.load_model("first")
    client.infer("first", SMALL)
    client.unload_model("first")
    return server.resident_bytes()


def left(server, resident_at_start):
    return (server.resident_bytes() - resident_at_start) / MIB


def test_loads_and_unloads(server, client, resident_at_start):
    """Of a model of 48 MB."""
    for _ in range(LOADS):
        client.load_model("first")
        client.unload_model("first")
    assert left(server, resident_at_start) < MOST_LEFT_BYTES / MIB


@pytest.mark.parametrize(("model", "inputs"), [("first", LARGE), ("external", LARGE)])
def test_loads_and_unloads_with_runs(model, inputs, server, client, resident_at_start):
    """With weights in the model's file and in another one; the arena of a large run goes too."""
    for _ in range(OTHER_LOADS):
        client.load_model(model)
        client.infer(model, inputs)
        client.unload_model(model)
    assert left(server, resident_at_start) < MOST_LEFT_BYTES / MIB


def test_loads_side_by_side(server, client, resident_at_start):
    """Threads that load at the same time take memory from heaps of their own."""
    names = ["first", "second", "third"]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as callers:
        for _ in range(OTHER_LOADS // SIDE_BY_SIDE):
            list(callers.map(client.load_model, names))
            list(callers.map(client.unload_model, names))
    assert left(server, resident_at_start) < MOST_LEFT_BYTES / MIB


def test_idle_model_keeps_no_memory_of_large_runs(server, client):
    """Its weights stay, and it answers."""
    client.load_model("idle")
    client.infer("idle", SMALL)
    loaded = server.resident_bytes()
    client.infer("idle", LARGE)
    eventually(lambda: server.resident_bytes() < loaded + 16 * MIB, "the arena has shrunk")
    assert client.infer("idle", SMALL)["y"].tolist() == [WIDTH]
    client.unload_model("idle")

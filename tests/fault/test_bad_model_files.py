"""A repository of files that are damaged, or crash or hang ONNX Runtime, beside a good model."""

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import psutil
import pytest

from inferd._generated.inference import grpc_service_pb2 as oip
from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from inferd.client import Client
from tests import onnx_models, onnx_traps
from tests.load import connect, metric
from tests.patience import PATIENCE_S
from tests.server import ServerProcess, serving

#: Enough for any other file here, on any machine: waits for a processor do not count.
PROBE_TIMEOUT_S = 1.5

#: What `ListModels` and the log say of the model, as a pattern.
REASONS = {
    "half-written": r"model\.onnx is not an ONNX file: .*",
    "truncated": r"model\.onnx is not an ONNX file: .*",
    "zero-byte": r"model\.onnx is not an ONNX file: it is empty",
    "not-onnx": r"model\.onnx is not an ONNX file: .*",
    "only-zeros": r"cannot load model\.onnx: Protobuf parsing failed",
    "wrong-opset": r"cannot load model\.onnx: it needs opset 999 of ai\.onnx, .* knows up to \d+",
    "wrong-type": r"cannot load model\.onnx: Type Error: .*",
    "missing-weights": r"model\.onnx has its weights in model\.weights: there is no such file or directory",
    "truncated-weights": r"cannot load model\.onnx: .*offset: 0 size to read: 256 given file_length: 252 .*",
    "dangling-link": r"cannot read model\.onnx: a link that leads nowhere",
    "crashing": r"cannot load model\.onnx: the model's file crashes ONNX Runtime: signal SIGFPE",
    "hanging": rf"cannot load model\.onnx: opening it took longer than {PROBE_TIMEOUT_S} s .*",
}


class Outcome(NamedTuple):
    """What became of the good model while the others were loaded, and of the server afterwards."""

    server: ServerProcess
    answers: list[list[list[float]]]
    repository: Path
    cache: Path


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    repository = tmp_path_factory.mktemp("repository")
    fill(repository)
    cache = tmp_path_factory.mktemp("cache")
    server = ServerProcess(
        repository,
        "--set",
        f"repository.probe_timeout_s={PROBE_TIMEOUT_S}",
        environment={"XDG_CACHE_HOME": str(cache)},
    )
    try:
        grpc = server.wait_event("listening")["grpc"]
        server.wait_event("model ready", model="a-good")
        server_ready = threading.Event()
        with ThreadPoolExecutor(1) as thread:
            answers = thread.submit(keep_calling, grpc, server_ready)
            try:
                server.wait_ready()
            finally:
                server_ready.set()
        yield Outcome(server, answers.result(), repository, cache)
    finally:
        status = server.stop()
        assert status == 0, server.text


def fill(repository: Path) -> None:
    """Write the models of `REASONS`, and a good one, which is loaded first."""
    whole = onnx_models.linear().SerializeToString()
    contents = {
        "half-written": whole[: len(whole) // 2],
        "truncated": whole[:-10],
        "zero-byte": b"",
        "not-onnx": b"<!DOCTYPE html><title>404 Not Found</title>",
        "only-zeros": bytes(4096),
        "wrong-opset": onnx_traps.future_opset().SerializeToString(),
        "wrong-type": wrong_type().SerializeToString(),
        "crashing": onnx_traps.crashes_when_opened().SerializeToString(),
        "hanging": onnx_traps.hangs_when_opened().SerializeToString(),
        "a-good": whole,
    }
    for name, content in contents.items():
        path = repository / name / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    onnx_models.save_with_external_data(repository / "missing-weights/1/model.onnx")
    (repository / "missing-weights/1/model.weights").unlink()
    onnx_models.save_with_external_data(repository / "truncated-weights/1/model.onnx")
    weights = repository / "truncated-weights/1/model.weights"
    weights.write_bytes(weights.read_bytes()[:-4])
    dangling = repository / "dangling-link/1/model.onnx"
    dangling.parent.mkdir(parents=True)
    dangling.symlink_to("nowhere.onnx")


def wrong_type() -> onnx.ModelProto:
    """Build `linear` with an output that is declared as INT64."""
    model = onnx_models.linear()
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    return model


def keep_calling(address: str, until: threading.Event) -> list[list[list[float]]]:
    answers = []
    with Client(address) as client:
        while not answers or not until.is_set():
            answers.append(client.infer("a-good", {"x": np.zeros((1, 3), np.float32)})["y"].tolist())
    return answers


def test_good_model_serves_while_others_fail(started: Outcome) -> None:
    """Also while a process of the server crashes and another one hangs; and when all have been tried."""
    assert all(answer == [[1, 1, 1]] for answer in started.answers)
    assert started.server.events("ready")[0]["models"] == ["a-good"]
    with Client(started.server.grpc) as client:
        assert client.infer("a-good", {"x": np.ones((2, 3), np.float32)})["y"].tolist() == [[3, 3, 3]] * 2


@pytest.mark.parametrize("name", REASONS)
def test_reports_reason_in_list_index_log_and_metrics(started: Outcome, name: str) -> None:
    with Client(started.server.grpc) as client:
        (model,) = [model for model in client.models() if model.name == name]
    assert re.fullmatch(REASONS[name], model.reason)
    with connect(started.server.grpc) as channel:
        index = GRPCInferenceServiceStub(channel).RepositoryIndex(oip.RepositoryIndexRequest(), timeout=PATIENCE_S)
    (entry,) = [entry for entry in index.models if entry.name == name]
    assert (entry.state, entry.reason) == ("UNAVAILABLE", model.reason)
    (line,) = [line for line in started.server.events("model failed to load") if line["model"] == name]
    assert (line["level"], line["reason"]) == ("error", model.reason)
    assert metric(started.server, "inferd_model_state", model=name, version="1", state="failed") == 1
    assert metric(started.server, "inferd_model_state", model=name, version="1", state="ready") == 0
    assert metric(started.server, "inferd_model_loads_total", model=name, outcome="failed") == 1


def test_log_has_no_traceback_and_only_whole_lines(started: Outcome) -> None:
    """What ONNX Runtime writes as it crashes is not in it."""
    assert "Traceback" not in started.server.text
    assert all(line.startswith("{") and line.endswith("}\n") for line in started.server.log)


def test_restart_knows_which_files_crash(started: Outcome, tmp_path: Path) -> None:
    """And which do not: no process is started for them. Weights that are missing may have come meanwhile."""
    for name in REASONS.keys() - {"hanging", "missing-weights"} | {"a-good"}:
        (tmp_path / name).symlink_to(started.repository / name)
    with serving(tmp_path, environment={"XDG_CACHE_HOME": str(started.cache)}) as server:
        process = psutil.Process(server.process.pid)
        assert not process.children()
        assert process.cpu_times().children_user == 0
        (line,) = [line for line in server.events("model failed to load") if line["model"] == "crashing"]
        assert re.fullmatch(REASONS["crashing"], line["reason"])

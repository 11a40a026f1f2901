"""Jobs on a live server: the same answers as in this process, whatever else it is asked or happens to it."""

import signal
import threading
from threading import Event

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from inferd.batch.errors import BatchError, UsageError
from inferd.batch.job import Job
from inferd.batch.local import open_local
from inferd.batch.options import JobOptions, RunOptions
from inferd.batch.server import open_server
from inferd.client import Client
from inferd.config.settings import Settings
from inferd.endpoint import Endpoint
from tests import onnx_models
from tests.decoder_models import write_tiny_decoder
from tests.patience import PATIENCE_S
from tests.s3 import s3_server
from tests.server import ServerProcess, serving

WIDTH = 32


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Models of a server: one that fails for some rows, one with a short queue, and a language model."""
    folder = tmp_path_factory.mktemp("models")
    onnx_models.save(onnx_models.lookup(), folder / "lookup" / "1" / "model.onnx")
    onnx_models.save(onnx_models.two_inputs(), folder / "ragged" / "1" / "model.onnx")
    onnx_models.save(onnx_models.slow(steps=100, width=WIDTH), folder / "busy" / "1" / "model.onnx")
    settings = {"queue": {"max_rows": 8}, "batching": {"max_batch_size": 4}}
    (folder / "busy" / "model.yaml").write_text(yaml.safe_dump(settings))
    write_tiny_decoder(folder / "tiny" / "1")
    return folder


@pytest.fixture(scope="module")
def server(repository):
    """One server for the tests that do not stop it; it takes messages of up to 32 KiB."""
    with serving(repository, environment={"INFERD_SERVER__MAX_MESSAGE_BYTES": str(32 << 10)}) as running:
        yield running


def run(model, table, folder, endpoint=None, **options):
    """Run a job on ``table``; return its answers and its summary."""
    folder.mkdir()
    source, output = folder / "rows.parquet", folder / "out"
    pq.write_table(table, source)
    made = JobOptions(model=str(model), inputs=(str(source),), output=str(output), row_ids=True, **options)
    summary = Job(made, RunOptions(), Settings(), endpoint).run(Event())
    return pq.read_table(output), summary


def test_same_answers_as_in_this_process(server, repository, tmp_path):
    """Byte for byte, rows of several lengths and failing ones included."""
    lengths = np.random.default_rng(0).integers(0, 9, 200)
    a = pa.array([[0.5 * row] * length for row, length in enumerate(lengths)], pa.list_(pa.float32()))
    # The last one has another length in each input.
    b = pa.array([[row] * (length + (row == 199)) for row, length in enumerate(lengths)], pa.list_(pa.int64()))
    table = pa.table({"a": a, "b": b})
    there, its_summary = run("ragged", table, tmp_path / "there", Endpoint(address=server.grpc))
    here, summary = run(repository / "ragged", table, tmp_path / "here", batch_rows=32, batch_bytes=1 << 20)
    assert there.drop_columns("source").equals(here.drop_columns("source"))
    assert (summary.rows, summary.errors) == (its_summary.rows, its_summary.errors) == (199, 1)


def test_failing_rows(server, tmp_path):
    """Cost themselves only."""
    index = [row % 4 if row not in {7, 300} else 9 for row in range(500)]
    answers, summary = run("lookup", pa.table({"index": index}), tmp_path / "job", Endpoint(address=server.grpc))
    assert (summary.rows, summary.errors) == (498, 2)
    assert answers["row"].to_pylist() == [row for row in range(500) if row not in {7, 300}]
    assert answers["y"].to_pylist() == [10.0 * each for each in index if each < 4]


def test_server_with_a_short_queue(server, tmp_path):
    """Holds back when it is told to, and loses no row; the requests of others are answered meanwhile."""
    x = np.random.default_rng(0).standard_normal((400, WIDTH)).astype(np.float32)
    table = pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), WIDTH)})
    done, others = Event(), []

    def ask():
        with Client(server.grpc, retry=None) as client:
            while not done.is_set():
                others.append(client.infer("busy", {"x": x[:1]}, timeout_s=PATIENCE_S)["y"])

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        answers, summary = run("busy", table, tmp_path / "job", Endpoint(address=server.grpc), batch_rows=4)
    finally:
        done.set()
        thread.join()
    assert (summary.rows, summary.errors) == (400, 0)
    np.testing.assert_array_equal(np.array(answers["y"].to_pylist(), np.float32), x)
    assert all((each == x[:1]).all() for each in others)


def test_server_that_is_killed_and_comes_back(repository):
    """Calls wait for it, and are answered once."""
    first = ServerProcess(repository / "lookup")
    first.wait_ready()
    port = int(first.grpc.rpartition(":")[2])
    runner = open_server(Endpoint(address=first.grpc), "lookup")
    try:
        assert runner.submit({"index": np.array([1])}, ("y",)).result(PATIENCE_S)["y"].tolist() == [10.0]
        first.stop(signal.SIGKILL)
        answers = [runner.submit({"index": np.array([row % 4])}, ("y",)) for row in range(10)]
        second = ServerProcess(repository / "lookup", grpc_port=port)
        try:
            second.wait_ready()
            assert [each.result(PATIENCE_S)["y"].tolist() for each in answers] == [
                [row % 4 * 10.0] for row in range(10)
            ]
        finally:
            second.stop()
    finally:
        runner.close()


def test_request_that_is_too_large(server, tmp_path):
    """Is halved: only a row that is too large itself has no answer."""
    lengths = [1000, 5000, 1000, 1000]
    table = pa.table({name: pa.array([[1] * length for length in lengths]) for name in ("a", "b")})
    answers, summary = run("ragged", table, tmp_path / "job", Endpoint(address=server.grpc), batch_bytes=10**6)
    assert (summary.rows, summary.errors) == (3, 1)
    assert answers["row"].to_pylist() == [0, 2, 3]


def test_server_without_the_model(server):
    """And one that is not there, and a model that is not for tables."""
    with pytest.raises(BatchError, match="none"):
        open_server(Endpoint(address=server.grpc), "none")
    with pytest.raises(BatchError, match=r"127\.0\.0\.1:1"):
        open_server(Endpoint(address="127.0.0.1:1"), "lookup")
    with pytest.raises(UsageError, match="language model"):
        open_server(Endpoint(address=server.grpc), "tiny")


def test_model_in_remote_storage(repository, tmp_path, monkeypatch):
    """Runs in this process as from a disk."""
    with s3_server(tmp_path) as storage:
        for name, value in storage.environment.items():
            monkeypatch.setenv(name, value)
        storage.create("models")
        storage.put_folder("models/lookup", repository / "lookup")
        settings = Settings(remote={"cache": tmp_path / "cache"})
        runner = open_local("s3://models/lookup", settings)
        assert runner.submit({"index": np.array([2])}, ("y",)).result(PATIENCE_S)["y"].tolist() == [20.0]
        runner.close()
        with pytest.raises(UsageError, match="nothing"):
            open_local("s3://models/nothing", settings)

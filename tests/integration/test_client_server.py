"""The client against the server: behaviour that unit tests verify with fakes."""

import asyncio
import json
import re
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest

from inferd import demo
from inferd.client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    Internal,
    InvalidInput,
    ModelState,
    NotFound,
    Overloaded,
    RetryPolicy,
    Unavailable,
)
from inferd.dtypes import BY_NAME
from tests import onnx_models
from tests.patience import PATIENCE_S
from tests.server import BIN, ServerProcess, serving

_TINY_QUEUE = """
queue: {max_rows: 1}
batching: {max_batch_size: 1}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The demo model, others of many kinds, a slow one and one that fails to load."""
    repository = tmp_path_factory.mktemp("models")
    models = {
        "strings": onnx_models.strings(),
        "half": onnx_models.cast_sum(BY_NAME["FP16"]),
        "brain": onnx_models.cast_sum(BY_NAME["BF16"]),
        "flags": onnx_models.identity(BY_NAME["BOOL"]),
        "lookup": onnx_models.lookup(),
        "slow": onnx_models.slow(steps=5000),
        "optional": onnx_models.optional_scale(),
        "maps": onnx_models.label_and_maps(),
        "constant": onnx_models.no_inputs(),
    }
    for name, model in models.items():
        onnx_models.save(model, repository / name / "1" / "model.onnx")
    (repository / "slow" / "model.yaml").write_text(_TINY_QUEUE)
    (repository / "lookup" / "model.yaml").write_text("batching: {instances: {max: 3}}")
    (repository / "broken" / "1").mkdir(parents=True)
    (repository / "broken" / "1" / "model.onnx").write_bytes(b"not a model")
    with serving(demo.repository(), repository) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    """A client without retries, so that each rejection is raised."""
    with Client(server.grpc, retry=None) as connected:
        yield connected


def _slow_input():
    return {"x": np.ones((1, 256), np.float32)}


def test_digits_are_recognized(client):
    """The built-in model's samples, all at once and over a stream in order."""
    samples = demo.samples()
    result = client.infer("digits", {"X": samples.inputs}, request_id="all")
    assert result["label"].tolist() == samples.labels.tolist()
    assert list(result.outputs) == ["label", "probabilities"]
    assert (result.version, result.request_id, result.timing.batch_rows) == ("1", "all", 10)
    rows = ({"X": row[np.newaxis]} for row in samples.inputs)
    items = client.stream("digits", rows, outputs=["label"], ordered=True)
    assert [item.result()["label"].item() for item in items] == samples.labels.tolist()


def test_asyncio_client_gets_same_answers(server):
    """From the same server."""
    samples = demo.samples()

    async def run():
        async with AsyncClient(server.grpc) as client:
            rows = [{"X": row[np.newaxis]} for row in samples.inputs]
            single = await asyncio.gather(*(client.infer("digits", row) for row in rows))
            streamed = [item.result() async for item in client.stream("digits", rows, ordered=True)]
            assert await client.is_ready()
            return [[result["label"].item() for result in results] for results in (single, streamed)]

    assert asyncio.run(run()) == [samples.labels.tolist()] * 2


def test_coalesced_calls_get_same_answers(server):
    """Calls of threads and of tasks over a shared stream, and separate calls."""
    samples = demo.samples()
    rows = [{"X": row[np.newaxis]} for row in samples.inputs] * 20
    with Client(server.grpc, coalesce=True) as client, ThreadPoolExecutor(16) as pool:
        by_threads = list(pool.map(lambda row: client.infer("digits", row), rows))

    async def run():
        async with AsyncClient(server.grpc, coalesce=True) as client:
            return await asyncio.gather(*(client.infer("digits", row) for row in rows))

    for results in (by_threads, asyncio.run(run())):
        assert [result["label"].item() for result in results] == samples.labels.tolist() * 20


def test_coalesced_calls_fail_alone(server):
    """Each failure is raised by its own call, and the stream continues."""
    with Client(server.grpc, coalesce=True) as client:
        with pytest.raises(InvalidInput) as caught:
            client.infer("digits", {"X": np.zeros((1, 63), np.float32)})
        assert caught.value.reason == "INVALID_INPUT"
        with pytest.raises(NotFound):
            client.infer("nobody", {})
        with pytest.raises(Internal):
            client.infer("lookup", {"index": [99]})
        with pytest.raises(DeadlineExceeded):
            client.infer("slow", _slow_input(), timeout_s=0.001)
        assert client.infer("lookup", {"index": [3]})["y"].item() == 30.0


def test_requests_share_messages():
    """The server gets fewer messages than requests, from a stream and from coalesced calls."""
    row = {"X": demo.samples().inputs[:1]}
    with serving(demo.repository()) as server:
        with Client(server.grpc) as client:
            assert len(list(client.stream("digits", [row] * 300, max_in_flight=100))) == 300

        async def run():
            async with AsyncClient(server.grpc, coalesce=True) as client:
                await asyncio.gather(*(client.infer("digits", row) for _ in range(300)))

        asyncio.run(run())
        server.stop()
        streams = [line for line in server.events("access") if line["method"].endswith("/StreamInfer")]
    assert [line["requests"] for line in streams] == [300, 300]
    assert all(line["messages_in"] < 150 for line in streams)


def test_slow_iterable_does_not_delay_results(server):
    """Results of the first elements are yielded while the iterable waits."""
    samples, seen = demo.samples(), threading.Event()

    def source():
        yield {"X": samples.inputs[:1]}
        yield {"X": samples.inputs[1:2]}
        assert seen.wait(PATIENCE_S)
        yield {"X": samples.inputs[2:3]}

    labels = []
    with Client(server.grpc) as client:
        for item in client.stream("digits", source(), ordered=True):
            labels.append(item.result()["label"].item())
            if len(labels) == 2:
                seen.set()
    assert labels == samples.labels[:3].tolist()


def test_stopping_server_ends_coalesced_stream():
    """Its calls fail as unavailable, and later ones reach the restarted server."""
    row = {"X": demo.samples().inputs[:1]}
    with serving(demo.repository()) as server, Client(server.grpc, coalesce=True, retry=None) as client:
        assert client.infer("digits", row)["label"].shape == (1,)
        assert server.stop() == 0
        with pytest.raises(Unavailable):
            client.infer("digits", row)


def test_all_types_of_elements(client):
    """Text, FP16, BF16 and booleans are sent and returned with their types."""
    loud = client.infer("strings", {"text": [["a", "zoë"]]})["loud"]
    assert loud.tolist() == [[b"a!", "zoë!".encode()]]
    for model, dtype in (("half", np.float16), ("brain", ml_dtypes.bfloat16)):
        doubled = client.infer(model, {"x": np.array([[1.5, -2]], dtype)})["y"]
        assert doubled.dtype == dtype
        assert doubled.astype(float).tolist() == [[3.0, -4.0]]
    flags = np.array([[True, False]])
    np.testing.assert_array_equal(client.infer("flags", {"x": flags})["y"], flags)


def test_optional_inputs_may_be_omitted(client):
    """Alone and beside requests that have them; those that are sent must match."""
    assert [spec.optional for spec in client.model("optional").inputs] == [False, True]
    requests = [{"x": np.full((1, 3), n, np.float32)} for n in range(64)]
    for n, request in enumerate(requests):
        if n % 4:
            request["scale"] = np.array(n % 3, np.float32)
    for n, item in enumerate(client.stream("optional", requests, ordered=True)):
        assert item.result()["y"].tolist() == [[n * (n % 3 if n % 4 else 2)] * 3]
    with pytest.raises(InvalidInput, match=r'input "x": expected FP32 .*, got no such input'):
        client.infer("optional", {"scale": np.array(1, np.float32)})


def test_serves_models_in_part(client):
    """Outputs beside maps, and models without inputs."""
    assert [spec.name for spec in client.model("maps").outputs] == ["label"]
    assert client.infer("maps", {"scores": np.array([[1, 3, 2]], np.float32)})["label"].tolist() == [1]
    assert client.infer("constant", {})["y"].tolist() == [1, 2]


def test_models_are_described(client):
    """Descriptions and readiness of the server, including those of a broken model."""
    by_name = {model.name: model for model in client.models()}
    assert by_name["digits"] == client.model("digits")
    assert by_name["digits"].inputs[0].shape == (None, 64)
    assert by_name["digits"].inputs[0].batch_axis == 0
    assert by_name["digits"].batching.verdict == "proven"
    assert by_name["constant"].batching.verdict == "contradicted"
    assert by_name["constant"].batching.verdict_reason
    assert by_name["broken"].batching.verdict == ""
    assert by_name["slow"].batching.max_queue_rows == 1
    following = by_name["lookup"].batching
    assert (following.min_instances, following.present_instances, following.instances) == (1, 1, 3)
    assert by_name["broken"].batching.present_instances == 0
    assert by_name["broken"].state is ModelState.FAILED
    assert by_name["broken"].reason
    assert client.is_ready()
    assert client.is_ready("digits")
    assert not client.is_ready("broken")


def test_errors_have_their_classes(client):
    """Each kind of failure raises its own exception, with the server's reason."""
    cases = [
        (InvalidInput, "INVALID_INPUT", "digits", {"X": np.zeros((1, 63), np.float32)}),
        (NotFound, "MODEL_NOT_FOUND", "nobody", {}),
        (Unavailable, "MODEL_UNAVAILABLE", "broken", {}),
        (Internal, "INFERENCE_FAILED", "lookup", {"index": [99]}),
    ]
    for kind, reason, model, inputs in cases:
        with pytest.raises(kind) as caught:
            client.infer(model, inputs)
        assert caught.value.reason == reason


def test_errors_have_id_of_log(server, client):
    """The caller's id, or the one that the server assigned, which comes with the status."""
    for request_id in ("", "mine-1"):
        with pytest.raises(NotFound) as caught:
            client.infer("nobody", {}, request_id=request_id)
        assert request_id in {"", caught.value.request_id}
        assert server.wait_event("access", request_id=caught.value.request_id)["status"] == "NOT_FOUND"
    (item,) = client.stream("nobody", [("mine-2", {})])
    assert item.error.request_id == "mine-2"


def test_metadata_requests_timing_and_sets_id(server, client):
    """The timing is in the result, and the call's id in the log."""
    asked = {"inferd-timing": "1", "x-request-id": "traced-1"}
    result = client.infer("lookup", {"index": [3]}, metadata=asked)
    assert "total;dur=" in result.metadata["inferd-timing"]
    assert result.metadata["x-request-id"] == "traced-1"
    assert server.wait_event("access", request_id="traced-1")["status"] == "OK"

    async def run():
        async with AsyncClient(server.grpc) as other:
            return await other.infer("lookup", {"index": [3]}, metadata=asked)

    assert asyncio.run(run()).metadata.keys() == result.metadata.keys()


def test_client_may_start_before_server(tmp_path):
    """It waits for the server and its model, over a Unix socket, and the first attempt succeeds."""
    address = f"unix:{tmp_path / 'inferd.sock'}"
    tried, samples = threading.Event(), demo.samples()

    def call() -> int:
        with Client(address, timeout_s=PATIENCE_S, retry=None) as early:
            assert not early.is_ready()
            tried.set()
            early.wait_until_ready("digits")
            return early.infer("digits", {"X": samples.inputs[7:8]})["label"].item()

    with ThreadPoolExecutor(1) as pool:
        label = pool.submit(call)
        assert tried.wait(PATIENCE_S)
        with serving(demo.repository(), "--host", address):
            assert label.result(PATIENCE_S) == samples.labels[7]


def test_failed_request_does_not_end_stream(client):
    """The failing request of a stream fails alone."""
    items = list(client.stream("lookup", [{"index": [1]}, {"index": [99]}, {"index": [3]}], ordered=True))
    assert [type(item.error) for item in items] == [type(None), Internal, type(None)]
    assert [items[0].result()["y"].item(), items[2].result()["y"].item()] == [10.0, 30.0]


def test_rejections_have_retry_delay(client):
    """Beyond the queue's limit, calls are rejected with a delay, and a client that retries gets all its answers."""

    def call(caller: Client) -> object:
        try:
            return caller.infer("slow", _slow_input())["y"].shape
        except Overloaded as error:
            return error

    outcomes, refused = [], []
    with ThreadPoolExecutor(8) as pool:
        while not refused:  # If all of them were late, on a busy machine.
            outcomes += pool.map(call, [client] * 8)
            refused = [outcome for outcome in outcomes if isinstance(outcome, Overloaded)]
    assert len(refused) < len(outcomes)
    for error in refused:
        assert error.reason == "QUEUE_FULL"
        assert error.retry_after_s is not None
        assert error.retry_after_s > 0


def test_retries_succeed(server):
    """With the retry policy and the server's delay, calls that were rejected are answered."""
    patient = RetryPolicy(initial_backoff_s=600, max_backoff_s=600)
    with Client(server.grpc, retry=patient) as client, ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: client.infer("slow", _slow_input()), range(3)))
    assert [result["y"].shape for result in results] == [(1, 256)] * 3


def test_timeouts_apply(client):
    """A call with a short timeout ends with it, and so does a request of a stream, which continues."""
    # The server refuses it at once if it knows that a run takes longer.
    with pytest.raises((DeadlineExceeded, Overloaded)):
        client.infer("slow", _slow_input(), timeout_s=0.001)
    (item,) = client.stream("slow", [_slow_input()], timeout_s=1e-6)
    assert isinstance(item.error, DeadlineExceeded)


def test_command_line_recognizes_digit(server):
    """`inferd infer` and `inferd models` with a real server."""
    pixels = json.dumps(demo.samples().inputs[7].tolist())

    def inferd(*arguments):
        return subprocess.run(
            [BIN / "inferd", *arguments, "-a", server.grpc], capture_output=True, text=True, check=True
        )

    answer = json.loads(inferd("infer", "digits", "-i", f"X={pixels}", "-o", "label", "--json").stdout)
    assert answer["outputs"] == {"label": {"datatype": "INT64", "shape": [1], "data": [7]}}
    listed = inferd("models").stdout
    (digits,) = (line for line in listed.splitlines() if line.startswith("digits"))
    assert re.search(r"1 row [\d.]+ \S+, 64 rows [\d.]+ [mµ]?s", digits)
    assert "FAILED" in listed


def test_stopped_server_is_unavailable():
    """Calls fail as unavailable, and readiness is False."""
    server = ServerProcess()
    try:
        server.wait_ready()
        with Client(server.grpc, retry=None) as client:
            assert client.is_ready("digits")
            assert server.stop() == 0
            assert not client.is_ready()
            with pytest.raises(Unavailable):
                client.models()
    finally:
        server.process.kill()
        server.wait()

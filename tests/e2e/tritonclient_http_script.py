"""Calls a server with Triton's own Python client over HTTP, in the client's own environment; fails by an assertion.

Arguments: the server's address; it serves the models of `test_tritonclient.py`. Or that of a server with the repository
of its test of model control, which has loaded nothing, and an ONNX file that doubles x, adds 1 and calls it y.
"""

import asyncio
import json
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

#: As in `tests.patience`, which this environment does not have.
PATIENCE_S = 120.0

BATCHED = {"backend": "onnxruntime", "max_batch_size": 6, "dynamic_batching": {}}


def _input(name, array, datatype, *, binary=True):
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


class Blocking:
    """The blocking client with the methods of the other one."""

    def __init__(self, address):
        self._client = triton.InferenceServerClient(address, connection_timeout=PATIENCE_S, network_timeout=PATIENCE_S)

    def __getattr__(self, name):
        method = getattr(self._client, name)

        async def call(*arguments, **named):
            return method(*arguments, **named)

        return call


async def check_metadata(client):
    """Queries of Triton's tools before inference."""
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("linear")
    assert await client.is_model_ready("linear", "01")
    assert not await client.is_model_ready("nobody")
    server = await client.get_server_metadata()
    assert server["name"] == "inferd"
    assert "binary_tensor_data" in server["extensions"]
    model = await client.get_model_metadata("linear")
    assert (model["name"], model["versions"], model["platform"]) == ("linear", ["1"], "onnxruntime_onnx")
    assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    config = await client.get_model_config("linear")
    assert config["max_batch_size"] == 64
    assert [(t["name"], t["data_type"], t["dims"]) for t in config["input"]] == [("x", "TYPE_FP32", [3])]
    assert "dynamic_batching" in config


async def check_forms(client):
    """JSON and binary, for each input and each output, give the same bits."""
    x = (np.arange(6, dtype=np.float32) / 7).reshape(2, 3)
    answers = []
    for sent in (True, False):
        for outputs in (None, [triton.InferRequestedOutput("y", binary_data=True)], [_json_output("y")]):
            inputs = [_input("x", x, "FP32", binary=sent)]
            result = await client.infer("linear", inputs, outputs=outputs, request_id="mine")
            assert result.get_response()["id"] == "mine"
            answers.append(result.as_numpy("y"))
    assert {answer.tobytes() for answer in answers} == {(2 * x + 1).tobytes()}
    assert {(answer.dtype, answer.shape) for answer in answers} == {(np.dtype(np.float32), (2, 3))}
    no_numbers = np.array([[np.nan, np.inf, -np.inf]], np.float32)
    result = await client.infer("linear", [_input("x", no_numbers, "FP32", binary=False)], outputs=[_json_output("y")])
    np.testing.assert_array_equal(result.as_numpy("y"), no_numbers)


def _json_output(name):
    return triton.InferRequestedOutput(name, binary_data=False)


async def check_options(client):
    """Priority, timeout, version, headers, further parameters, and compression of answers, which need not be."""
    x = np.ones((1, 3), np.float32)
    result = await client.infer(
        "linear",
        [_input("x", x, "FP32")],
        "01",
        priority=1,
        timeout=int(PATIENCE_S * 1e6),
        headers={"X-Request-Id": "a header"},
        query_params={"a": 1},
        response_compression_algorithm="gzip",
    )
    np.testing.assert_array_equal(result.as_numpy("y"), 2 * x + 1)
    result = await client.infer("linear", [_input("x", x, "FP32")], outputs=[triton.InferRequestedOutput("y", True, 2)])
    assert [text.decode().split(":")[0] for text in result.as_numpy("y").ravel()] == ["3.000000", "3.000000"]


async def check_types(client):
    """Strings and the half-width floats."""
    text = np.array([["a", "büro"], ["", "d"]], dtype=object)
    for binary in (True, False):
        outputs = [triton.InferRequestedOutput("loud", binary_data=binary)]
        result = await client.infer("strings", [_input("text", text, "BYTES", binary=binary)], outputs=outputs)
        found = [s.decode() if isinstance(s, bytes) else s for s in result.as_numpy("loud").ravel()]
        assert found == ["a!", "büro!", "!", "d!"]
    half = np.array([[1.5, -2.25]], np.float16)
    result = await client.infer("fp16", [_input("x", half, "FP16")])
    np.testing.assert_array_equal(result.as_numpy("y"), half * 2)
    brain = np.array([[1.5, -2.0]], ml_dtypes.bfloat16)
    doubled = (await client.infer("bf16", [_input("x", brain, "BF16")])).as_numpy("y")
    np.testing.assert_array_equal(doubled.astype(np.float32), [[3.0, -4.0]])


async def check_optional_inputs(client):
    """They may be omitted."""
    x, scale = _input("x", np.ones((2, 3), np.float32), "FP32"), _input("scale", np.array(5, np.float32), "FP32")
    for inputs, expected in (([x], 2), ([x, scale], 5), ([scale, x], 5), ([x], 2)):
        assert ((await client.infer("optional", inputs)).as_numpy("y") == expected).all()


async def check_errors(client):
    """Errors have the appropriate status, and say what is wrong."""
    x = np.ones((1, 3), np.float32)
    for arguments, status, said in [
        (("nobody", [_input("x", x, "FP32")]), "404", "nobody"),
        (("linear", [_input("x", x, "FP32")], "7"), "404", "7"),
        (("linear", [_input("x", x.astype(np.int64), "INT64")]), "400", "expected datatype FP32"),
        (("linear", [_input("z", x, "FP32")]), "400", '"z"'),
        (("linear", [_input("x", x[:, :2], "FP32")]), "400", "[1,2]"),
    ]:
        error = await _error_of(client.infer(*arguments))
        assert status in error.status(), error
        assert said in error.message(), error
    error = await _error_of(client.register_system_shared_memory("a", "/a", 8))
    assert "inferd has no shared memory" in error.message()
    for algorithm in ("gzip", "deflate"):
        call = client.infer("linear", [_input("x", x, "FP32")], request_compression_algorithm=algorithm)
        error = await _error_of(call)
        assert (error.status(), "server.compressed_requests" in error.message()) == ("415", True), error
    shared = triton.InferInput("x", [1, 3], "FP32")
    shared.set_shared_memory("region", 12)
    error = await _error_of(client.infer("linear", [shared]))
    assert 'parameter "shared_memory_region" is not supported' in error.message(), error
    error = await _error_of(client.load_model("linear"))
    assert "explicit model load / unload is not allowed" in error.message()


async def _error_of(call):
    try:
        await call
    except InferenceServerException as error:
        return error
    raise AssertionError("accepted")


async def check_statistics(client):
    """Counts grow."""
    (before,) = (await client.get_inference_statistics("linear"))["model_stats"]
    await client.infer("linear", [_input("x", np.ones((3, 3), np.float32), "FP32")])
    (after,) = (await client.get_inference_statistics("linear", "1"))["model_stats"]
    assert after["inference_count"] == before["inference_count"] + 3
    assert after["inference_stats"]["success"]["count"] == before["inference_stats"]["success"]["count"] + 1
    assert {s["name"] for s in (await client.get_inference_statistics())["model_stats"]} >= {"linear", "strings"}
    assert {"linear", "strings"} <= {model["name"] for model in await client.get_model_repository_index()}


async def check_control(client, file):
    """Load, with overrides too, and unload; the index says what has been done."""
    assert {"name": "never"} in await client.get_model_repository_index()
    await client.load_model("linear")
    assert (await client.get_model_metadata("linear"))["versions"] == ["1", "2"]
    await client.load_model("linear", config=json.dumps(BATCHED))
    assert (await client.get_model_config("linear"))["max_batch_size"] == 6
    await client.load_model("linear", config=json.dumps(BATCHED), files={"file:3/model.onnx": Path(file).read_bytes()})
    assert (await client.get_model_metadata("linear"))["versions"] == ["3"]
    result = await client.infer("linear", [_input("x", np.ones((1, 3), np.float32), "FP32")])
    np.testing.assert_array_equal(result.as_numpy("y"), [[3, 3, 3]])
    await client.unload_model("linear", unload_dependents=True)
    assert not await client.is_model_ready("linear")
    await client.unload_model("linear")
    error = await _error_of(client.load_model("broken"))
    assert error.status() == "500"
    assert "failed to load 'broken', no version is available" in error.message()


def check_concurrent_requests(address):
    """The blocking client's own asynchronous requests, over several connections."""
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    with triton.InferenceServerClient(address, concurrency=4, network_timeout=PATIENCE_S) as client:
        pending = [client.async_infer("linear", [_input("x", x + number, "FP32")]) for number in range(50)]
        for number, request in enumerate(pending):
            np.testing.assert_array_equal(request.get_result().as_numpy("y"), 2 * (x + number) + 1)


async def check_all(client, name):
    """Run every check with ``client``."""
    checks = (check_metadata, check_forms, check_options, check_types, check_optional_inputs, check_errors)
    for check in (*checks, check_statistics):
        await check(client)
        sys.stdout.write(f"{name}: {check.__name__} held\n")


async def main(address, file=None):
    """Check both clients; with a file, that they control models."""
    blocking = Blocking(address)
    async with triton_aio.InferenceServerClient(address, conn_timeout=PATIENCE_S) as client:
        for each, name in ((blocking, "blocking"), (client, "asyncio")):
            if file is None:
                await check_all(each, name)
            else:
                await check_control(each, file)
                sys.stdout.write(f"{name}: check_control held\n")
    await blocking.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
    if len(sys.argv) == 2:
        check_concurrent_requests(sys.argv[1])
        sys.stdout.write("concurrent requests held\n")

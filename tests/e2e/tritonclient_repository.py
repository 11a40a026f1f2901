"""Controls the models of a server with Triton's own Python clients, in their own environment; fails by an assertion.

Arguments: the server's address, and an ONNX file that doubles x, adds 1 and calls it y. The server has the repository
of `test_tritonclient.py`, and has loaded nothing.
"""

import asyncio
import json
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

#: As in `tests.patience`, which this environment does not have.
PATIENCE_S = 120.0

BATCHED = {"backend": "onnxruntime", "max_batch_size": 6, "dynamic_batching": {}}


class Blocking:
    """The blocking client with the methods of the other one."""

    def __init__(self, address):
        self._client = triton.InferenceServerClient(address)

    def __getattr__(self, name):
        method = getattr(self._client, name)

        async def call(*arguments, **named):
            return method(*arguments, **named)

        return call


async def _fails(call, status, *texts):
    error = await _error_of(call)
    assert error.status() == status, error
    assert all(text in error.message() for text in texts), error


async def _error_of(call):
    try:
        await call
    except InferenceServerException as error:
        return error
    raise AssertionError("accepted")


async def _index(client):
    index = await client.get_model_repository_index()
    return {(model.name, model.version): (model.state, model.reason) for model in index.models}


async def check_index(client):
    """Models that were never loaded have only a name."""
    index = await client.get_model_repository_index()
    assert [(m.name, m.version, m.state) for m in index.models if m.name == "never"] == [("never", "", "")]
    listed = await client.get_model_repository_index(as_json=True)
    assert {"name": "never"} in listed["models"]
    metadata = await client.get_server_metadata()
    assert {"model_repository", "model_repository(unload_dependents)"} < set(metadata.extensions)


async def check_load_and_unload(client):
    """A model answers when its load has ended, and not any more when its unload has."""
    await client.load_model("linear", client_timeout=PATIENCE_S)
    assert await client.is_model_ready("linear")
    assert list((await client.get_model_metadata("linear")).versions) == ["1", "2"]
    index = await _index(client)
    assert {version: index[name, version] for name, version in index if name == "linear"} == {
        "2": ("READY", ""),
        "1": ("READY", ""),
    }
    await client.unload_model("linear", unload_dependents=True)
    assert not await client.is_model_ready("linear")
    assert (await _index(client))["linear", "2"] == ("UNAVAILABLE", "unloaded")
    await client.unload_model("linear")
    await client.unload_model("nobody")


async def check_overrides(client):
    """A configuration, and files of a model that is in no repository; the next plain load undoes them."""
    await client.load_model("linear", config=json.dumps(BATCHED))
    assert (await client.get_model_config("linear")).config.max_batch_size == 6
    await client.load_model("linear")
    assert (await client.get_model_config("linear")).config.max_batch_size != 6
    content = Path(sys.argv[2]).read_bytes()
    await client.load_model("sent", config=json.dumps(BATCHED), files={"file:3/model.onnx": content})
    x = triton.InferInput("x", [1, 3], "FP32")
    x.set_data_from_numpy(np.ones((1, 3), np.float32))
    result = await client.infer("sent", [x], "3")
    np.testing.assert_array_equal(result.as_numpy("y"), [[3, 3, 3]])
    await client.load_model("sent", config=json.dumps(BATCHED), files={"file:4/model.onnx": content})
    assert list((await client.get_model_metadata("sent")).versions) == ["4"], "only those that are ready"
    await client.unload_model("sent")


async def check_errors(client):
    """Statuses and texts that programs match."""
    await _fails(client.load_model("broken"), "StatusCode.INTERNAL", "failed to load 'broken', no version is available")
    state, reason = (await _index(client))["broken", "1"]
    assert state == "UNAVAILABLE"
    assert reason
    polled = "failed to load 'nobody', failed to poll from model repository"
    await _fails(client.load_model("nobody"), "StatusCode.INTERNAL", polled)
    await _fails(client.load_model("linear", config="{"), "StatusCode.INVALID_ARGUMENT", "Invalid config override: ")
    files = {"other": b""}
    unknown = client.load_model("linear", config="{}", files=files)
    await _fails(unknown, "StatusCode.INVALID_ARGUMENT", "unrecognized load parameter 'other'.")
    escaping = client.load_model("linear", config="{}", files={"file:../1/model.onnx": b""})
    await _fails(escaping, "StatusCode.INVALID_ARGUMENT", "file:VERSION/NAME")


CHECKS = (check_index, check_load_and_unload, check_overrides, check_errors)


async def main():
    """Run every check with each client."""
    for kind in (Blocking, triton_aio.InferenceServerClient):
        client = kind(sys.argv[1])
        for check in CHECKS:
            await check(client)
            sys.stdout.write(f"{check.__name__} held\n")
        await client.close()


if __name__ == "__main__":
    asyncio.run(main())

"""Calls a server with KServe's own Python client over HTTP, in the client's own environment; fails by an assertion.

Arguments: the server's URL. The server serves the models of `test_tritonclient.py`.
"""

import asyncio
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput

#: As in `tests.patience`, which this environment does not have.
PATIENCE_S = 120


def _request(model, array, *, binary, outputs=()):
    tensor = InferInput("x", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array, binary_data=binary)
    requested = [RequestedOutput("y", {"binary_data": each}) for each in outputs]
    return InferRequest(model, [tensor], request_id="mine", request_outputs=requested or None)


async def _error_of(call):
    try:
        await call
    except httpx.HTTPStatusError as error:
        return str(error)
    raise AssertionError("accepted")


async def main(url):
    """Ask for health, and infer in JSON and binary."""
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=1, timeout=PATIENCE_S))
    assert await client.is_server_live(url)
    assert await client.is_server_ready(url)
    assert await client.is_model_ready(url, "linear")
    assert not await client.is_model_ready(url, "nobody")
    x = (np.arange(6, dtype=np.float32) / 7).reshape(2, 3)
    for binary in (False, True):
        for outputs in ((), (False,), (True,)):
            result = await client.infer(url, _request("linear", x, binary=binary, outputs=outputs), model_name="linear")
            assert (result.model_name, result.id) == ("linear", "mine")
            np.testing.assert_array_equal(result.outputs[0].as_numpy(), 2 * x + 1)
    error = await _error_of(client.infer(url, _request("linear", x[:, :2], binary=False), model_name="linear"))
    assert "'400 Bad Request'" in error, error
    assert "expected shape" in error, error
    await client.close()
    sys.stdout.write("held\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

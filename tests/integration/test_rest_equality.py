"""The same answers over HTTP as over gRPC, bit for bit: in JSON, in binary, and in both at once."""

import http.client
import json

import grpc
import numpy as np
import pytest

from inferd import demo, dtypes
from inferd._generated.inference import grpc_service_pb2 as pb
from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from scripts import build_minilm
from tests.patience import PATIENCE_S
from tests.server import serving

LENGTH = "Inference-Header-Content-Length"
WORDS = ["the", "cat", "sat", "on", "a", "mat", "while", "rain", "fell", "over", "hills", "and", "people", "spoke"]


@pytest.fixture(scope="module")
def server():
    """The digits model and MiniLM, which is built once and cached."""
    with serving(build_minilm.build(), demo.repository()) as running:
        yield running


@pytest.fixture(scope="module")
def stub(server):
    """Calls over gRPC."""
    with grpc.insecure_channel(server.grpc) as channel:
        yield GRPCInferenceServiceStub(channel)


@pytest.fixture(scope="module")
def connection(server):
    """One connection for all requests over HTTP."""
    opened = http.client.HTTPConnection(server.rest, timeout=PATIENCE_S)
    yield opened
    opened.close()


def _over_grpc(stub, model, inputs):
    """Return the raw outputs by name."""
    request = pb.ModelInferRequest(model_name=model, raw_input_contents=[array.tobytes() for array in inputs.values()])
    for name, array in inputs.items():
        request.inputs.add(name=name, datatype=dtypes.BY_NUMPY[array.dtype].name, shape=array.shape)
    response = stub.ModelInfer(request, timeout=PATIENCE_S)
    return dict(zip([output.name for output in response.outputs], response.raw_output_contents, strict=True))


def _over_http(connection, model, inputs, outputs, *, binary_inputs, indent=None):
    """Return the raw outputs by name; ``outputs`` says which are to be binary."""
    tensors, parts = [], []
    for name, array in inputs.items():
        tensor = {"name": name, "datatype": dtypes.BY_NUMPY[array.dtype].name, "shape": array.shape}
        if name in binary_inputs:
            tensor["parameters"] = {"binary_data_size": array.nbytes}
            parts.append(array.tobytes())
        else:
            tensor["data"] = array.tolist()
        tensors.append(tensor)
    wanted = [{"name": name, "parameters": {"binary_data": binary}} for name, binary in outputs.items()]
    text = json.dumps({"inputs": tensors, "outputs": wanted}, indent=indent).encode()
    headers = {LENGTH: str(len(text))} if parts else {}
    connection.request("POST", f"/v2/models/{model}/infer", b"".join([text, *parts]), headers)
    response = connection.getresponse()
    body = response.read()
    assert response.status == 200, body
    assert (response.headers.get(LENGTH) is not None) == any(outputs.values())
    return _raw(body, int(response.headers.get(LENGTH, len(body))), outputs)


def _raw(body, length, outputs):
    found, position = {}, length
    for output in json.loads(body[:length])["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size", 0)
        assert ("data" in output) != outputs[output["name"]]
        if "data" in output:
            array = np.array(output["data"], dtypes.BY_NAME[output["datatype"]].numpy).reshape(output["shape"])
            found[output["name"]] = array.tobytes()
        else:
            found[output["name"]] = body[position : position + size]
        position += size
    assert position == len(body)
    return found


def _check(stub, connection, model, inputs):
    """Compare every form of answers, with inputs in JSON and binary."""
    expected = _over_grpc(stub, model, inputs)
    names = list(expected)
    all_json, all_binary = dict.fromkeys(names, False), dict.fromkeys(names, True)
    mixed = {name: number % 2 == 0 for number, name in enumerate(names)}
    for binary_inputs in ((), tuple(inputs), tuple(inputs)[:1]):
        for outputs in (all_json, all_binary, mixed):
            assert _over_http(connection, model, inputs, outputs, binary_inputs=binary_inputs) == expected


def test_digits(stub, connection):
    """Every image that the model was trained or tested on, and the samples one by one."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  it takes a second, in all processes of tests

    pixels, _ = load_digits(return_X_y=True)
    for start in range(0, len(pixels), 300):
        _check(stub, connection, "digits", {"X": pixels[start : start + 300].astype(np.float32)})
    samples = demo.samples().inputs
    for row in range(len(samples)):
        _check(stub, connection, "digits", {"X": samples[row : row + 1]})


def test_minilm(stub, connection):
    """Sentences of several lengths, alone and several at once."""
    folder = build_minilm.build()
    tokenizer = build_minilm.load_tokenizer(folder)
    for length in (1, 3, 8, 14):
        for rows in (1, 4):
            texts = [" ".join((WORDS[start:] + WORDS)[:length]) for start in range(rows)]
            _check(stub, connection, folder.name, build_minilm.encode(tokenizer, texts))

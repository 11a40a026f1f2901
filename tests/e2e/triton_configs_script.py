"""Calls a server with Triton's own Python client, in the client's own environment; fails by an assertion.

Arguments: the server's address, and a directory that takes the configuration of each model as bytes. The server serves
the models of `test_triton_configs.py`.
"""

import queue
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

#: As in `tests.patience`, which this environment does not have.
PATIENCE_S = 120.0


def _input(name, array, datatype):
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def _shapes(tensors):
    return {tensor.name: list(tensor.shape) for tensor in tensors}


def save_configs(client, folder):
    """Write what the client gets, for the test to compare with the file."""
    for model in client.get_model_repository_index().models:
        config = client.get_model_config(model.name).config
        (folder / model.name).write_bytes(config.SerializeToString())


def check_reshape_and_classes(client):
    """An image without a batch dimension, the classes of which have labels."""
    model = client.get_model_metadata("densenet_onnx")
    assert (_shapes(model.inputs), _shapes(model.outputs)) == ({"data_0": [3, 224, 224]}, {"fc6_1": [1000]})
    image = np.zeros((3, 224, 224), np.float32)
    image[0, 0, :4] = [0.5, 3, 1, 2]
    inputs = [_input("data_0", image, "FP32")]
    plain = client.infer("densenet_onnx", inputs).as_numpy("fc6_1")
    assert plain.shape == (1000,)
    assert plain[:4].tolist() == [0.5, 3, 1, 2]
    outputs = [triton.InferRequestedOutput("fc6_1", class_count=3)]
    top = client.infer("densenet_onnx", inputs, outputs=outputs)
    assert top.as_numpy("fc6_1").tolist() == [b"3.000000:1:GOLDFISH", b"2.000000:3:SHARK", b"1.000000:2"]
    message = _error_of(client, "densenet_onnx", _input("data_0", image[None], "FP32"))
    assert "expected 3 dimensions, got shape [1, 3, 224, 224]" in message


def _error_of(client, model, tensor):
    try:
        client.infer(model, [tensor])
    except InferenceServerException as error:
        return error.message()
    raise AssertionError("accepted")


def check_scalars_of_rows(client):
    """An output that has one dimension less in the file; classes of each row."""
    model = client.get_model_metadata("scalar_output")
    assert _shapes(model.inputs) == {"features": [-1, 30]}
    assert _shapes(model.outputs) == {"label": [-1, 1], "probabilities": [-1, 2]}
    features = np.zeros((3, 30), np.float32)
    features[:, :2] = [[0.25, 0.75], [0.5, 0.125], [0, 1]]
    inputs = [_input("features", features, "FP32")]
    answer = client.infer("scalar_output", inputs)
    assert answer.as_numpy("label").tolist() == [[1], [0], [1]]
    outputs = [triton.InferRequestedOutput("probabilities", class_count=1), triton.InferRequestedOutput("label")]
    answer = client.infer("scalar_output", inputs, outputs=outputs)
    assert answer.as_numpy("probabilities").tolist() == [[b"0.750000:1"], [b"0.500000:0"], [b"1.000000:1"]]
    assert answer.as_numpy("label").tolist() == [[1], [0], [1]]


def check_classes_on_a_stream(client):
    """As in single calls, also from requests with the same template."""
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    outputs = [triton.InferRequestedOutput("probabilities", class_count=1)]
    for number in range(3):
        features = np.full((1, 30), number, np.float32)
        client.async_stream_infer("scalar_output", [_input("features", features, "FP32")], outputs=outputs)
    for number in range(3):
        result, error = answers.get(timeout=PATIENCE_S)
        assert error is None, error
        assert result.as_numpy("probabilities").tolist() == [[b"%f:0" % number]]
    client.stop_stream()


def check_whole_shapes(client):
    """Without batches the dims are the whole shape, and an optional input may be left out."""
    model = client.get_model_metadata("optional_bias")
    assert _shapes(model.inputs) == {"x": [-1, 3], "bias": [3]}
    x, bias = np.ones((2, 3), np.float32), np.array([1, 2, 3], np.float32)
    alone = client.infer("optional_bias", [_input("x", x, "FP32")]).as_numpy("y")
    assert alone.tolist() == [[2, 2, 2]] * 2
    both = client.infer("optional_bias", [_input("x", x, "FP32"), _input("bias", bias, "FP32")]).as_numpy("y")
    assert both.tolist() == [[2, 3, 4]] * 2


def check_priorities(client):
    """Each has its own timeout, which a request may shorten or not; all are answered here."""
    x = np.ones((1, 64), np.float32)
    for priority in (0, 1, 2, 3):
        answer = client.infer("urgent", [_input("x", x, "FP32")], priority=priority, timeout=60_000_000)
        assert answer.as_numpy("y").tolist() == [[64]]


def main():
    """Run every check on one connection."""
    with triton.InferenceServerClient(sys.argv[1]) as client:
        save_configs(client, Path(sys.argv[2]))
        for check in (
            check_reshape_and_classes,
            check_scalars_of_rows,
            check_classes_on_a_stream,
            check_whole_shapes,
            check_priorities,
        ):
            check(client)
            sys.stdout.write(f"{check.__name__} held\n")


if __name__ == "__main__":
    main()

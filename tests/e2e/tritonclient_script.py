"""Calls a server with Triton's own Python client, in the client's own environment; fails by an assertion.

Arguments: the server's address. The server serves the models of `test_tritonclient.py`.
"""

import queue
import sys
from functools import partial

import ml_dtypes
import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

#: As in `tests.patience`, which this environment does not have.
PATIENCE_S = 120.0


def _input(name, array, datatype):
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def check_metadata(client):
    """Queries of Triton's tools before inference."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("linear")
    assert client.is_model_ready("linear", "1")
    assert client.is_model_ready("linear", "01")
    assert not client.is_model_ready("nobody")
    assert not client.is_model_ready("")
    server = client.get_server_metadata()
    assert server.name == "inferd"
    assert list(server.extensions) == [
        "binary_tensor_data",
        "classification",
        "model_configuration",
        "model_repository",
        "model_repository(unload_dependents)",
        "parameters",
        "schedule_policy",
        "statistics",
    ]
    model = client.get_model_metadata("linear")
    assert (model.name, list(model.versions), model.platform) == ("linear", ["1"], "onnxruntime_onnx")
    assert [(t.name, t.datatype, list(t.shape)) for t in model.inputs] == [("x", "FP32", [-1, 3])]
    config = client.get_model_config("linear").config
    assert config.max_batch_size == 64
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [("x", 11, [3])]
    assert config.WhichOneof("scheduling_choice") == "dynamic_batching"


def check_infer(client):
    """Single and concurrent requests."""
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    result = client.infer(
        "linear",
        [_input("x", x, "FP32")],
        outputs=[triton.InferRequestedOutput("y")],
        request_id="mine",
        priority=1,
        timeout=int(PATIENCE_S * 1e6),
        client_timeout=PATIENCE_S,
    )
    np.testing.assert_array_equal(result.as_numpy("y"), 2 * x + 1)
    assert result.get_response().id == "mine"
    # Null values, and a duplicate output.
    twice = [triton.InferRequestedOutput("y")] * 2
    result = client.infer(
        "linear", [_input("x", x, "FP32")], "01", outputs=twice, sequence_id=0, priority=0, timeout=0, client_timeout=10
    )
    assert [output.name for output in result.get_response().outputs] == ["y"]
    answers = queue.Queue()
    for number in range(50):
        client.async_infer(
            "linear",
            [_input("x", x + number, "FP32")],
            partial(lambda n, result, error: answers.put((n, result, error)), number),
        )
    for _ in range(50):
        number, result, error = answers.get(timeout=PATIENCE_S)
        assert error is None, error
        np.testing.assert_array_equal(result.as_numpy("y"), 2 * (x + number) + 1)


def check_stream(client):
    """A stream with good and bad requests: answers in order, and errors do not end it."""
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    x = np.ones((1, 3), np.float32)
    for number in range(20):
        client.async_stream_infer("linear", [_input("x", x * number, "FP32")], request_id=str(number))
    client.async_stream_infer("nobody", [_input("x", x, "FP32")], request_id="bad")
    client.async_stream_infer("linear", [_input("x", x, "FP32")], request_id="last")
    for number in range(20):
        result, error = answers.get(timeout=PATIENCE_S)
        assert error is None, error
        assert result.get_response().id == str(number)
        np.testing.assert_array_equal(result.as_numpy("y"), 2 * x * number + 1)
    result, error = answers.get(timeout=PATIENCE_S)
    assert "nobody" in str(error)
    result, error = answers.get(timeout=PATIENCE_S)
    assert error is None
    assert result.get_response().id == "last"
    client.stop_stream()


def check_types(client):
    """Strings and the half-width floats."""
    text = np.array([["a", "büro"], ["", "d"]], dtype=object)
    result = client.infer("strings", [_input("text", text, "BYTES")])
    assert [s.decode() for s in result.as_numpy("loud").ravel()] == ["a!", "büro!", "!", "d!"]
    half = np.array([[1.5, -2.25]], np.float16)
    np.testing.assert_array_equal(client.infer("fp16", [_input("x", half, "FP16")]).as_numpy("y"), half * 2)
    brain = np.array([[1.5, -2.0]], ml_dtypes.bfloat16)
    doubled = client.infer("bf16", [_input("x", brain, "BF16")]).as_numpy("y")
    np.testing.assert_array_equal(doubled.astype(np.float32), [[3.0, -4.0]])


def check_optional_inputs(client):
    """They are in the configuration and in the metadata, and may be omitted."""
    config = client.get_model_config("optional").config
    assert [(t.name, t.optional) for t in config.input] == [("x", False), ("scale", True)]
    assert [t.name for t in client.get_model_metadata("optional").inputs] == ["x", "scale"]
    x, scale = _input("x", np.ones((2, 3), np.float32), "FP32"), _input("scale", np.array(5, np.float32), "FP32")
    for inputs, expected in (([x], 2), ([x, scale], 5), ([scale, x], 5), ([x], 2)):
        assert (client.infer("optional", inputs).as_numpy("y") == expected).all()


def check_errors(client):
    """Errors have the appropriate code."""
    x = np.ones((1, 3), np.float32)
    for arguments, code, said in [
        (("nobody", [_input("x", x, "FP32")]), "NOT_FOUND", "nobody"),
        (("linear", [_input("x", x, "FP32")], "7"), "NOT_FOUND", "7"),
        (("linear", [_input("x", x.astype(np.int64), "INT64")]), "INVALID_ARGUMENT", "expected datatype FP32"),
        (("linear", [_input("z", x, "FP32")]), "INVALID_ARGUMENT", '"z"'),
        (("linear", [_input("x", x[:, :2], "FP32")]), "INVALID_ARGUMENT", "[1,2]"),
    ]:
        error = _error_of(client, *arguments)
        assert code in error.status(), error
        assert said in error.message(), error


def _error_of(client, *arguments):
    try:
        client.infer(*arguments)
    except InferenceServerException as error:
        return error
    raise AssertionError(f"accepted: {arguments}")


def check_statistics(client):
    """Counts grow."""
    before = client.get_inference_statistics("linear").model_stats[0]
    x = np.ones((3, 3), np.float32)
    client.infer("linear", [_input("x", x, "FP32")])
    after = client.get_inference_statistics("linear", "1").model_stats[0]
    assert after.inference_count == before.inference_count + 3
    assert after.execution_count == before.execution_count + 1
    assert after.inference_stats.success.count == before.inference_stats.success.count + 1
    assert after.inference_stats.queue.count == before.inference_stats.queue.count + 1
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns
    assert after.last_inference >= before.last_inference > 0
    assert {s.name for s in client.get_inference_statistics().model_stats} >= {"linear", "strings"}
    # This client does not know inferd's additional fields.
    told = client.get_inference_statistics("linear", as_json=True)["model_stats"][0]
    assert (told["name"], int(told["inference_count"])) == ("linear", after.inference_count)
    assert "batch_verdict" not in told


def main():
    """Run every check on one connection."""
    with triton.InferenceServerClient(sys.argv[1]) as client:
        for check in (
            check_metadata,
            check_infer,
            check_stream,
            check_types,
            check_optional_inputs,
            check_errors,
            check_statistics,
        ):
            check(client)
            sys.stdout.write(f"{check.__name__} held\n")


if __name__ == "__main__":
    main()

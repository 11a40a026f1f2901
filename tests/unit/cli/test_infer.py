"""``inferd infer`` against a fake server."""

import json

import grpc
import ml_dtypes
import numpy as np
import pytest

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.client import codec
from tests.unit.client.fake_service import BROKEN, DIGITS, FakeService, encode, overload_status, refuse


@pytest.fixture
def service():
    """The fake server, with a model that accepts images of any size."""
    digits = pb.Model()
    digits.CopyFrom(DIGITS)
    digits.inputs[0].shape[:] = [-1, -1]
    return FakeService(digits, BROKEN)


def _respond_with(**outputs):
    tensors = [encode(name.replace("__", "/"), array) for name, array in outputs.items()]
    return lambda request, _: pb.InferResponse(model=request.model, version="2", outputs=tensors)


def test_language_model(inferd, server, service):
    """It takes no tensors; the error names the command that it is for."""
    service.models = [pb.Model(name="lm", version="1", state=pb.Model.STATE_READY, generation=pb.Generation())]
    result = inferd("infer", "lm", "-i", "x=[1]", "-a", server.address)
    expected = 'inferd: model "lm" is a language model, which takes no tensors: inferd generate lm\n'
    assert (result.exit_code, result.err) == (2, expected)


def _sent(service) -> tuple[str, list[int], bytes]:
    (tensor,) = service.requests[0].inputs
    return pb.DataType.Name(tensor.datatype), list(tensor.shape), tensor.raw


def test_json_is_converted_to_the_declared_type(inferd, server, service):
    """Integers for a float input are sent as floats, in the shape of the lists."""
    assert inferd("infer", "digits", "-i", "X=[[1, 2], [3, 4.5]]", "-a", server.address).exit_code == 0
    assert _sent(service) == ("DATA_TYPE_FP32", [2, 2], np.array([1, 2, 3, 4.5], np.float32).tobytes())


def test_without_inputs(inferd, server, service):
    """The request has no inputs."""
    assert inferd("infer", "digits", "-a", server.address).exit_code == 0
    assert list(service.requests[0].inputs) == []


def test_rejects_inputs_of_a_model_without_inputs(inferd, server, service):
    """Unlike a model whose inputs are unknown."""
    service.models = [pb.Model(name="constant", version="1", state=pb.Model.STATE_READY)]
    result = inferd("infer", "constant", "-i", "X=[1]", "-a", server.address)
    assert (result.exit_code, result.err) == (2, 'inferd: input "X": the model has no such input, it has none\n')


def test_inputs_of_a_model_on_demand(inferd, server, service):
    """The model is loaded to know them."""
    service.models = [pb.Model(name="digits", version="1", state=pb.Model.STATE_ON_DEMAND)]
    assert inferd("infer", "digits", "-i", f"X={[1] * 64}", "-a", server.address).exit_code == 0
    assert _sent(service)[0] == "DATA_TYPE_FP32"


def test_single_row_gets_the_batch_dimension(inferd, server, service):
    """JSON with one dimension less than declared is one row."""
    inferd("infer", "digits", "-i", "X=[1, 2]", "-a", server.address)
    assert _sent(service)[1] == [1, 2]


def test_inputs_from_files(inferd, server, service, tmp_path):
    """A .json file is like JSON on the command line; a .npy file is sent as is, without a call of GetModel."""
    (tmp_path / "x.json").write_text("[1, 2]")
    np.save(tmp_path / "x.npy", np.array([1, 2], np.int16))
    inferd("infer", "digits", "-i", f"X=@{tmp_path}/x.json", "-a", server.address)
    inferd("infer", "unknown", "-i", f"X=@{tmp_path}/x.npy", "-a", server.address)
    first, second = (request.inputs[0] for request in service.requests)
    assert (first.datatype, list(first.shape)) == (pb.DATA_TYPE_FP32, [1, 2])
    assert (second.datatype, list(second.shape)) == (pb.DATA_TYPE_INT16, [2])


@pytest.fixture
def adder(service):
    """A model with two inputs."""
    inputs = [
        pb.TensorInfo(name=name, datatype=datatype, shape=[-1, 2], dimension_names=["n", ""], batch_axis=0)
        for name, datatype in (("a", pb.DATA_TYPE_INT32), ("b", pb.DATA_TYPE_BYTES))
    ]
    service.models = [pb.Model(name="adder", version="1", state=pb.Model.STATE_READY, inputs=inputs)]


def _received(service, number=-1):
    return {tensor.name: codec.decode(tensor).tolist() for tensor in service.requests[number].inputs}


@pytest.mark.usefixtures("adder")
def test_sends_a_recorded_request(inferd, server, service, tmp_path):
    """The first of a file, or the one of the given number, with the declared types."""
    examples = tmp_path / "examples.json"
    examples.write_text('[{"a": [[1, 2]], "b": [["x", "zoë"]]}, {"a": [3, 4], "b": ["y", ""]}]', encoding="utf-8")
    assert inferd("infer", "adder", "--example", examples, "-a", server.address).exit_code == 0
    assert inferd("infer", "adder", "--example", f"{examples}:1", "-a", server.address).exit_code == 0
    assert _received(service, 0) == {"a": [[1, 2]], "b": [[b"x", "zoë".encode()]]}
    assert _received(service, 1) == {"a": [[3, 4]], "b": [[b"y", b""]]}
    assert service.requests[0].inputs[0].datatype == pb.DATA_TYPE_INT32


@pytest.mark.usefixtures("adder")
def test_inputs_override_those_of_a_recorded_request(inferd, server, service, tmp_path):
    """By name; the others stay. The server checks that they match."""
    np.savez(tmp_path / "examples.npz", a=np.array([[1, 2]], np.int32), b=np.array([["x", "y"]]))
    result = inferd(
        "infer", "adder", "--example", tmp_path / "examples.npz", "-i", "a=[[5, 6], [7, 8]]", "-a", server.address
    )
    assert result.exit_code == 0
    assert _received(service) == {"a": [[5, 6], [7, 8]], "b": [[b"x", b"y"]]}


@pytest.mark.usefixtures("adder")
def test_invalid_recorded_requests(inferd, server, tmp_path):
    """The error names the file, request and input, or the number of requests."""
    examples = tmp_path / "examples.json"
    examples.write_text('[{"a": [[1, 2]], "b": [["x", "y"]]}, {"a": [[1, 2]]}]')
    result = inferd("infer", "adder", "--example", examples, "-a", server.address)
    assert result.exit_code == 2
    assert result.err == ('inferd: examples.json: request 1: input "b": expected BYTES [n, 2], got no such input\n')
    examples.write_text('{"a": [[1, 2]], "b": [["x", "y"]]}')
    result = inferd("infer", "adder", "--example", f"{examples}:1", "-a", server.address)
    assert result.exit_code == 2
    assert result.err == "inferd: --example: expected a number from 0 to 0 for examples.json, got 1\n"


def test_options_reach_the_server(inferd, server, service, monkeypatch):
    """Version, outputs and the token of the environment are sent."""
    monkeypatch.setenv("INFERD_TOKEN", "from-env")
    inferd("infer", "digits", "-i", "X=[1]", "--model-version", "1", "-o", "b", "-o", "a", "-a", server.address)
    (request,) = service.requests
    assert (request.version, list(request.outputs)) == ("1", ["b", "a"])
    assert service.metadata[0]["authorization"] == "Bearer from-env"


def test_token_file_overrides_the_environment(inferd, server, service, monkeypatch, tmp_path):
    """The token of --token-file is used, without a final newline."""
    monkeypatch.setenv("INFERD_TOKEN", "from-env")
    (tmp_path / "token").write_text("from-file\n")
    inferd("infer", "digits", "-i", "X=[1]", "--token-file", tmp_path / "token", "-a", server.address)
    assert service.metadata[0]["authorization"] == "Bearer from-file"


def test_outputs_as_text(inferd, server, service):
    """Type, shape and values of each output, then the timing; no colors without a terminal."""
    service.on_infer = _respond_with(label=np.array([7]), name=np.array([b"z\xff", "zoë".encode()], object))
    out = inferd("infer", "digits", "-i", "X=[1]", "-a", server.address).out
    assert out.splitlines() == [
        "label  INT64 [1]",
        "  [7]",
        "name  BYTES [2]",
        "  ['z\\\\xff', 'zoë']",
        "digits version 2: queued 0.00 ms, ran 0.00 ms",
    ]


def test_outputs_as_json(inferd, server, service):
    """One object; non-finite numbers are strings, as in protobuf's JSON."""
    service.on_infer = _respond_with(
        f=np.array([[1.5, np.nan], [np.inf, -np.inf]], np.float32),
        bf=np.array([0.5], ml_dtypes.bfloat16),
        text=np.array(["zoë"]),
        raw=np.array([b"\xff"], object),
        flag=np.array(True),
    )
    out = json.loads(inferd("infer", "digits", "-i", "X=[1]", "--json", "-a", server.address).out)
    assert (out["model"], out["version"]) == ("digits", "2")
    assert out["timing"] == {"queue_s": 0.0, "run_s": 0.0, "batch_rows": 0}
    assert out["outputs"] == {
        "f": {"datatype": "FP32", "shape": [2, 2], "data": [[1.5, "NaN"], ["Infinity", "-Infinity"]]},
        "bf": {"datatype": "BF16", "shape": [1], "data": [0.5]},
        "text": {"datatype": "BYTES", "shape": [1], "data": ["zoë"]},
        "raw": {"datatype": "BYTES", "shape": [1], "encoding": "base64", "data": ["/w=="]},
        "flag": {"datatype": "BOOL", "shape": [], "data": True},
    }


def test_saves_outputs(inferd, server, service, tmp_path):
    """All outputs to a directory, or one to a file; saved outputs are not printed."""
    service.on_infer = _respond_with(
        a=np.arange(3), dir__b=np.array([b"x"], object), bf=np.array([0.5], ml_dtypes.bfloat16)
    )
    target = tmp_path / "new" / "dir"
    result = inferd(
        "infer", "digits", "-i", "X=[1]", "--save", target, "--save", f"a={tmp_path}/mine", "-a", server.address
    )
    assert f"saved to {tmp_path}/mine" in result.out
    assert np.load(tmp_path / "mine").tolist() == [0, 1, 2]
    assert np.load(target / "dir_b.npy").tolist() == [b"x"]
    assert np.load(target / "bf.npy").tolist() == [0.5]
    assert sorted(path.name for path in target.iterdir()) == ["bf.npy", "dir_b.npy"]


def test_saved_outputs_stay_in_the_directory(inferd, server, service, tmp_path):
    """Whatever names a server returns."""
    service.on_infer = _respond_with(**{"..__..__evil": np.arange(1)})
    inferd("infer", "digits", "-i", "X=[1]", "--save", tmp_path / "a" / "b", "-a", server.address)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.npy")] == ["a/b/_.._evil.npy"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-i", "X"], "--input: expected NAME=JSON, NAME=@FILE.json or NAME=@FILE.npy, got"),
        (["-i", "X=[1]", "-i", "X=[2]"], "--input: expected each name once"),
        (["-i", "X=[1,"], 'input "X": invalid JSON: '),
        (["-i", "X=@/nope.npy"], "/nope.npy: cannot be read: No such file or directory"),
        (["-i", "X=@/nope.json"], "/nope.json: cannot be read: No such file or directory"),
        (["-i", "Z=[1]"], 'input "Z": the model has no such input, it has X'),
        (["-i", 'X=["a"]'], 'input "X": expected FP32, got "a"'),
        (["-i", "X=[[[1]]]"], 'input "X": expected shape [batch, ?], got [1, 1, 1]'),
        (["-i", "X=" + "[" * 100_000], 'input "X": invalid JSON: values are nested too deeply'),
        (["--example", "x.txt"], '--example: expected FILE.json, FILE.npz or one of them with :NUMBER, got "x.txt"'),
        (["--example", "x.json:a"], "--example: expected FILE.json, FILE.npz or one of them with :NUMBER, got"),
        (["--example", "x.json:-1"], "--example: expected FILE.json, FILE.npz or one of them with :NUMBER, got"),
        (["--example", "/nope/x.json"], "x.json: cannot be read: No such file or directory"),
        (["-i", "X=@"], '--input: expected NAME=JSON, NAME=@FILE.json or NAME=@FILE.npy, got "X=@"'),
        (["-i", "X=[1]", "--token-file", "/nope"], "--token-file /nope: cannot be read: No such file or directory"),
        (["-i", "X=[1]", "--token-file", "/dev/null"], "--token-file /dev/null: "),
        (["-i", "X=[1]", "--ca", "/nope"], "/nope: ca: No such file or directory"),
        (["-i", "X=[1]", "--timeout", "nan"], "--timeout: expected at least 0 seconds, got nan"),
        (["-i", "X=[1]", "--certificate", "c.pem"], "certificate and key: expected both or none"),
    ],
)
def test_invalid_arguments(inferd, server, arguments, message):
    """One line on stderr with the reason, and exit code 2."""
    result = inferd("infer", "digits", "-a", server.address, *arguments)
    assert (result.exit_code, result.out) == (2, "")
    assert result.err.startswith("inferd: ")
    assert result.err.count("\n") == 1
    assert message in result.err


def test_damaged_npy_files(inferd, server, tmp_path):
    """Files that are not numpy's, or contain pickled objects, are rejected and never unpickled."""
    (tmp_path / "x.npy").write_bytes(b"nonsense")
    np.save(tmp_path / "y.npy", np.array([None], object), allow_pickle=True)
    for name in ("x", "y"):
        result = inferd("infer", "digits", "-i", f"X=@{tmp_path}/{name}.npy", "-a", server.address)
        assert result.exit_code == 2
        assert f"{name}.npy: cannot be read" in result.err


def test_tokens_are_not_sent_in_clear_text(inferd, monkeypatch):
    """Not to another machine without TLS, and they are not printed."""
    monkeypatch.setenv("INFERD_TOKEN", "s3cret")
    result = inferd("infer", "digits", "-i", "X=[1]", "-a", "inferd.example.com:8001")
    assert result.exit_code == 2
    assert "use TLS" in result.err
    assert "s3cret" not in result.err


def test_failed_calls_are_one_line(inferd, server, service):
    """The server's status and message on stderr, and exit code 1."""
    service.on_infer = lambda _, context: context.abort(grpc.StatusCode.INVALID_ARGUMENT, 'input "X": expected [64]')
    result = inferd("infer", "digits", "-i", "X=[1]", "-a", server.address)
    assert (result.exit_code, result.out) == (1, "")
    assert result.err == 'inferd: INVALID_ARGUMENT: input "X": expected [64]\n'


def test_rejections_include_the_retry_delay(inferd, server, service):
    """As sent by an overloaded server."""
    details = overload_status(retry_s=2.5).SerializeToString()
    service.on_infer = lambda _, context: refuse(context, pushback_ms="-1", details=details)
    result = inferd("infer", "digits", "-i", "X=[1]", "-a", server.address)
    assert result.err == "inferd: RESOURCE_EXHAUSTED: the queue is full (retry after 2.5 s)\n"


@pytest.mark.parametrize("arguments", [("-i", "X=[1]"), ("--example", "x.json")])
def test_inputs_of_failed_models_are_unknown(inferd, server, arguments):
    """The error for JSON inputs includes the reason of the failure."""
    result = inferd("infer", "broken", *arguments, "-a", server.address)
    assert result.exit_code == 1
    assert 'model "broken" are unknown, its state is FAILED: not an ONNX file' in result.err


def test_rejects_unknown_outputs_to_save(inferd, server, tmp_path):
    """The error lists the outputs that exist."""
    result = inferd("infer", "digits", "-i", "X=[1]", "--save", f"Y={tmp_path}/y.npy", "-a", server.address)
    assert result.exit_code == 1
    assert 'no such output "Y", the model returned X' in result.err

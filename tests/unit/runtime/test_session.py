"""Real ONNX models in a real session on the CPU."""

import logging
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from inferd import dtypes
from inferd.config.settings import ModelSettings
from inferd.runtime import session as session_module
from inferd.runtime.batch_axes import establish
from inferd.runtime.batch_axes.verdict import Standing
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.session import OnnxSession, open_session
from tests import onnx_models, onnx_traps


def opened(model, folder: Path, **settings: dict) -> OnnxSession:
    return open_session(onnx_models.save(model, folder / "model.onnx"), ModelSettings.model_validate(settings))


def axes(session: OnnxSession) -> dict[str, int | None]:
    return {spec.name: spec.batch_axis for spec in (*session.signature.inputs, *session.signature.outputs)}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (onnx_models.linear(), {"x": 0, "y": 0}),
        (onnx_models.linear(None), {"x": 0, "y": 0}),
        (onnx_models.two_inputs(), {"a": 0, "b": 0, "total": 0, "product": 0}),
        (onnx_models.batch_axis_one(), {"x": 1, "y": 0}),
        (onnx_models.shared_scalar(), {"x": 0, "factor": None, "y": 0}),
        (onnx_models.constant_output(), {"x": 0, "y": 0, "classes": None}),
        (onnx_models.strings(), {"text": 0, "loud": 0}),
        (onnx_models.lookup(), {"index": 0, "y": 0}),
        (onnx_models.needs_size(), {"x": 0, "y": 0}),
    ],
)
def test_establishes_batch_axes_of_real_models(model, expected, tmp_path):
    """Inferred from the declaration, and verified by runs."""
    session = opened(model, tmp_path)
    assert session.signature.batchable
    assert axes(session) == expected
    assert session.providers == ("CPUExecutionProvider",)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (onnx_models.linear(1), "no input has an open dimension"),
        (onnx_models.two_inputs("batch", "length"), "starts with an open dimension other than batch"),
        (onnx_models.rows_do_not_follow(), "no output has an open dimension"),
    ],
)
def test_models_that_cannot_batch(model, why, tmp_path):
    """They run each request alone, with a reason."""
    session = opened(model, tmp_path)
    assert not session.signature.batchable
    assert session.verdict.standing is Standing.CONTRADICTED
    assert why in session.verdict.reason


@pytest.mark.parametrize("warmup", [True, False])
def test_does_not_batch_mean_over_batch(warmup, tmp_path, caplog):
    """With or without warm-up; logged once."""
    session = opened(onnx_models.centred(), tmp_path, runtime={"warmup": warmup})
    assert not session.signature.batchable
    assert "ReduceMean looks at all rows at once; for example, element" in session.verdict.reason
    assert len(caplog.records) == 1
    assert "model.onnx is not batched: contradicted" in caplog.text


def test_configured_axis_batches_contradicted_model(tmp_path, caplog):
    """With a warning."""
    session = opened(onnx_models.centred(), tmp_path, inputs={"x": {"batch_axis": 0}})
    assert session.signature.batchable
    assert session.verdict.standing is Standing.CONTRADICTED
    assert "is batched because batch_axis is set, although the verdict is contradicted" in caplog.text


@pytest.mark.parametrize(
    ("files", "source"),
    [
        (["config.pbtxt"], "batch_axes is first: max_batch_size in config.pbtxt is above 0"),
        (["model.yaml"], "batch_axes is first in model.yaml"),
        (["config.pbtxt", "model.yaml"], "batch_axes is first in model.yaml or config.pbtxt"),
    ],
)
def test_warning_about_contradicted_axes_names_their_source(files, source, tmp_path, caplog):
    """The operator's word is taken, and where it stands is told."""
    for name in files:
        (tmp_path / name).touch()
    (tmp_path / "1").mkdir()
    session = opened(onnx_models.centred(), tmp_path / "1", batch_axes="first")
    assert (session.signature.batchable, session.verdict.standing) == (True, Standing.CONTRADICTED)
    (warning,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert f"is batched because {source}, although the verdict is contradicted: " in warning.message
    assert "requests get other answers in a batch than alone" in warning.message


def test_no_warning_where_nothing_is_batched(tmp_path, caplog):
    """Rows of one request only run together."""
    session = opened(onnx_models.centred(), tmp_path, batch_axes="first", batching={"enabled": False})
    assert session.signature.batchable
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_rejects_configured_axis_with_wrong_shapes(tmp_path):
    """Outputs could not be split."""
    with pytest.raises(ModelLoadError, match=r'batch_axis is set, but output "y" .* rows do not follow'):
        opened(
            onnx_models.batch_axis_one(), tmp_path, inputs={"x": {"batch_axis": 0}}, outputs={"y": {"batch_axis": 0}}
        )


def test_unproven_without_inputs_that_run(tmp_path, caplog):
    """Requests run alone, and the log says how to have the model proven."""
    session = opened(onnx_models.needs_size(500), tmp_path)
    assert not session.signature.batchable
    assert (session.verdict.standing, session.synthetic_inputs) == (Standing.UNPROVEN, None)
    assert "inputs.NAME.example in model.yaml" in caplog.text
    shape = opened(onnx_models.needs_size(500), tmp_path, inputs={"x": {"warmup_shape": [1, 1, 500]}})
    assert shape.verdict.standing is Standing.PROVEN


def test_operator_examples_prove_model(tmp_path):
    """From the settings, or recorded requests beside the model."""
    model = onnx_models.needs_size(300)
    values = np.random.default_rng(0).normal(size=(3, 1, 310)).round(3)
    given = opened(model, tmp_path, inputs={"x": {"example": values.tolist()}})
    assert given.verdict.standing is Standing.PROVEN
    np.savez(tmp_path / "examples.npz", **{"0/x": values.astype(np.float32)})
    recorded = opened(model, tmp_path)
    assert recorded.verdict.standing is Standing.PROVEN
    assert recorded.synthetic_inputs.rows(5)["x"].shape == (5, 1, 310)


def test_rejects_invalid_example(tmp_path):
    """Naming the setting."""
    path = onnx_models.save(onnx_models.linear(), tmp_path / "model.onnx")
    assert refusal(path, inputs={"x": {"example": ["a"]}}).startswith("inputs.x.example: ")


def test_takes_verdict_from_cache(tmp_path, monkeypatch):
    """With the same axes and the same inputs for warm-up."""
    cache = {"verdict_cache": tmp_path / "verdicts"}
    first = opened(onnx_models.unknown_output_rank(), tmp_path, runtime=cache)
    proven = opened(onnx_models.batch_axis_one(), tmp_path, runtime=cache)
    monkeypatch.setattr(establish, "verify_batch_axes", None)
    again = opened(onnx_models.batch_axis_one(), tmp_path, runtime=cache)
    assert (again.signature, again.verdict) == (proven.signature, proven.verdict)
    assert again.synthetic_inputs.rows(3)["x"].tobytes() == proven.synthetic_inputs.rows(3)["x"].tobytes()
    unproven = opened(onnx_models.unknown_output_rank(), tmp_path, runtime=cache)
    assert (unproven.signature, unproven.verdict) == (first.signature, first.verdict)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"inputs": {"x": {"warmup_shape": [1, 3]}}}, id="settings"),
        pytest.param({"outputs": {"y": {"batch_axis": 0}}}, id="axes"),
    ],
)
def test_cache_key_covers_everything_that_determines_verdict(change, tmp_path):
    """Another file, other settings or other examples are verified again."""
    cache = {"verdict_cache": tmp_path / "verdicts"}
    opened(onnx_models.linear(), tmp_path, runtime=cache)
    opened(onnx_models.linear(), tmp_path, runtime=cache, **change)
    opened(onnx_models.linear("rows"), tmp_path, runtime=cache)
    (tmp_path / "examples.json").write_text('{"x": [[1, 2, 3]]}')
    opened(onnx_models.linear(), tmp_path, runtime=cache)
    assert len(list((tmp_path / "verdicts").iterdir())) == 4


def test_stop_batching(tmp_path):
    """Removes the batch axes and sets the reason, except for configured axes."""
    session = opened(onnx_models.linear(), tmp_path)
    assert session.stop_batching("found while serving: a test")
    assert not session.signature.batchable
    assert (session.verdict.standing, session.verdict.reason) == (Standing.CONTRADICTED, "found while serving: a test")
    given = opened(onnx_models.linear(), tmp_path, inputs={"x": {"batch_axis": 0}})
    assert not given.stop_batching("a test")
    assert given.signature.batchable


def test_returns_requested_outputs_in_order(tmp_path):
    """And only those."""
    session = opened(onnx_models.two_inputs(), tmp_path)
    inputs = {"a": np.array([[3]], np.float32), "b": np.array([[4]], np.int64)}
    product, total = session.run(inputs, ["product", "total"])
    assert (product.item(), total.item()) == (12, 7)
    assert len(session.run(inputs, ["total"])) == 1


@pytest.mark.parametrize("datatype", dtypes.ALL, ids=lambda datatype: datatype.name)
@pytest.mark.parametrize("shape", [(2, 2), (1, 0)])
def test_passes_every_element_type(datatype, shape, tmp_path):
    """Bit by bit, also when empty."""
    session = opened(onnx_models.identity(datatype, ("batch", None)), tmp_path)
    x = np.array([b"\xc3\x9f", b"", b"a\0b", b"d"], object) if datatype is dtypes.BYTES else np.arange(4) % 2
    x = x.astype(datatype.numpy)[: np.prod(shape)].reshape(shape)
    session.signature.check({"x": x})
    (y,) = session.run({"x": x}, ["y"])
    assert y.dtype == datatype.numpy
    assert y.shape == shape
    assert y.tolist() == x.tolist()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_computes_with_narrow_floats(dtype, tmp_path):
    """Not only passes them through."""
    session = opened(onnx_models.cast_sum(dtypes.BY_NUMPY[np.dtype(dtype)]), tmp_path)
    (y,) = session.run({"x": np.array([[1.5, -2]], dtype)}, ["y"])
    assert y.dtype == dtype
    assert y.tolist() == [[3, -4]]


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize(
    "view",
    [
        lambda x: np.frombuffer(b"\0" + x.tobytes(), x.dtype, offset=1).reshape(x.shape),
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        np.asfortranarray,
    ],
    ids=["unaligned", "gaps", "column by column"],
)
def test_reads_any_view(dtype, view, tmp_path):
    """Inputs may be read-only views of the received message."""
    session = opened(onnx_models.cast_sum(dtypes.BY_NUMPY[np.dtype(dtype)]), tmp_path)
    x = np.array([[1, 2], [3, 4]], dtype)
    (y,) = session.run({"x": view(x)}, ["y"])
    assert y.tolist() == [[2, 4], [6, 8]]


def test_strings_are_bytes(tmp_path):
    """ONNX Runtime's str stays inside the session."""
    session = opened(onnx_models.strings(), tmp_path)
    (loud,) = session.run({"text": np.array([["hé".encode(), b""]], object)}, ["loud"])
    assert loud.tolist() == [["hé!".encode(), b"!"]]


def test_later_runs_do_not_overwrite_outputs(tmp_path):
    """Reused buffers are never those of an output."""
    for datatype in ("FP32", "BF16"):
        session = opened(onnx_models.cast_sum(dtypes.BY_NAME[datatype]), tmp_path)
        numpy_type = dtypes.BY_NAME[datatype].numpy
        answers = [session.run({"x": np.full((2, 2), n, numpy_type)}, ["y"])[0] for n in range(5)]
        assert [answer[0, 0] for answer in answers] == [0, 2, 4, 6, 8]


def test_finds_external_data(tmp_path):
    """In a file beside the model."""
    session = open_session(onnx_models.save_with_external_data(tmp_path / "model.onnx"), ModelSettings())
    (y,) = session.run({"x": np.ones((1, 64), np.float32)}, ["y"])
    assert y[0].tolist() == list(range(64))


def test_session_is_independent_of_weight_files(tmp_path):
    """Writes to a mapped file would change outputs, and truncation kill the process."""
    session = open_session(onnx_models.save_with_external_data(tmp_path / "model.onnx"), ModelSettings())
    weights = tmp_path / "model.weights"
    assert str(weights) not in Path("/proc/self/maps").read_text()
    for content in (bytes(256), b""):
        weights.write_bytes(content)
        (y,) = session.run({"x": np.ones((1, 64), np.float32)}, ["y"])
        assert y[0].tolist() == list(range(64))


@pytest.mark.parametrize("name", ["model.onnx", "model.weights"])
def test_rejects_files_that_change_during_load(name, tmp_path, monkeypatch):
    """A verdict must not be stored under the hash of another file."""
    path = onnx_models.save_with_external_data(tmp_path / "model.onnx")
    opening = session_module.open_runtime_session

    def open_slowly(*arguments):
        os.utime(tmp_path / name, (1, 1))
        return opening(*arguments)

    monkeypatch.setattr(session_module, "open_runtime_session", open_slowly)
    assert refusal(path) == "model.onnx or a file with its weights was changed while it was loaded"


def test_closed_session_does_not_run(tmp_path):
    """Closing twice is allowed."""
    session = opened(onnx_models.linear(), tmp_path)
    session.close()
    session.close()
    with pytest.raises(RuntimeError, match="the session is closed"):
        session.run({"x": np.ones((1, 3), np.float32)}, ["y"])


def refusal(path: Path, **settings: dict) -> str:
    with pytest.raises(ModelLoadError) as refused:
        open_session(path, ModelSettings.model_validate(settings))
    return str(refused.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (onnx_models.sequence_of_maps(), 'output "probabilities" is of type seq(map(int64,tensor(float)))'),
        (onnx_models.sequence_input(), 'input "parts" is of type seq(tensor(float)), only tensors can be served'),
        (onnx_models.optional_output(), 'output "y" is of type optional(tensor(float)), only tensors can be served'),
        (onnx_models.element_type(14), "cannot load model.onnx: MLDataType for: tensor(complex64) is not"),
        (onnx_models.element_type(17), 'input "other" is of type tensor(float8e4m3fn), an element type that cannot'),
        (
            onnx_models.element_type(22),
            "cannot load model.onnx: This is an invalid model. Type Error: Type 'tensor(int4)'",
        ),
        (
            onnx_traps.future_opset(),
            "cannot load model.onnx: it needs opset 999 of ai.onnx, the installed ONNX Runtime",
        ),
        (onnx_models.text_and_bf16(), "the model has both BYTES and BF16 tensors"),
    ],
)
def test_rejects_models_that_cannot_be_served(model, message, tmp_path):
    """Saying what is wrong with them."""
    assert message in refusal(onnx_models.save(model, tmp_path / "model.onnx"))


@pytest.mark.parametrize(
    "content",
    [b"", b"not a model at all", bytes(1000), onnx_models.linear().SerializeToString()[:-60]],
    ids=["empty", "text", "zeros", "truncated"],
)
def test_rejects_damaged_files(content, tmp_path):
    """Without naming their directory."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    message = refusal(path)
    assert message.startswith(("cannot load model.onnx: ", "model.onnx is not an ONNX file: "))
    assert str(tmp_path) not in message
    assert "ONNXRuntimeError" not in message


def test_rejects_names_that_are_not_utf8(tmp_path):
    """A flipped bit in a name is a damaged file, not a crash."""
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_models.linear().SerializeToString().replace(b"\x01x", b"\x01\xff"))
    assert "damaged" in refusal(path)


def test_names_missing_file(tmp_path):
    """Without its directory."""
    assert refusal(tmp_path / "model.onnx") == "cannot read model.onnx: there is no such file or directory"


def test_names_missing_external_data(tmp_path):
    """Without its directory."""
    path = onnx_models.save_with_external_data(tmp_path / "model.onnx")
    (tmp_path / "model.weights").unlink()
    message = refusal(path)
    assert "model.weights" in message
    assert str(tmp_path) not in message


def test_rejects_provider_that_is_not_built_in(tmp_path):
    """Instead of silently running on the CPU."""
    path = onnx_models.save(onnx_models.linear(), tmp_path / "model.onnx")
    assert "openvino is not in the installed build" in refusal(path, runtime={"providers": ["openvino"]})


def test_accepts_threads_and_parallel_mode(tmp_path, caplog):
    """The session runs without warnings."""
    caplog.set_level(logging.WARNING)
    runtime = {"intra_op_threads": 2, "inter_op_threads": 2, "allow_spinning": True, "providers": ["cpu"]}
    (y,) = opened(onnx_models.linear(), tmp_path, runtime=runtime).run({"x": np.ones((1, 3), np.float32)}, ["y"])
    assert y.tolist() == [[3, 3, 3]]
    assert caplog.text == ""


@pytest.mark.parametrize(("threads", "runs"), [((1, 1), 4), ((2, 1), 2), ((2, 2), 1)])
def test_parallel_runs_follow_cores_and_threads(threads, runs, tmp_path, monkeypatch):
    """Intra-op threads times inter-op threads."""
    monkeypatch.setattr(session_module, "usable_cores", lambda: 4)
    runtime = {"intra_op_threads": threads[0], "inter_op_threads": threads[1], "providers": ["cpu"]}
    assert opened(onnx_models.linear(), tmp_path, runtime=runtime).parallel_runs == runs

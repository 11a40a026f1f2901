"""Falling back from one provider to the next, with a stand-in for ONNX Runtime's sessions; what models declare."""

import logging
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest

from inferd import dtypes
from inferd.config.settings import ModelSettings
from inferd.runtime import opening, providers
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.opening import declared, open_runtime_session
from inferd.runtime.providers import CPU, CUDA
from tests import onnx_models
from tests.unit.runtime.specs import spec


class FakeSession:
    """Opens with ``opens`` whatever it is asked for; an exception is raised instead."""

    opens: ClassVar[dict[str, list[str] | Exception]] = {}
    options: ClassVar[list[onnxruntime.SessionOptions]] = []

    def __init__(self, path, *, sess_options, providers, enable_fallback) -> None:
        assert enable_fallback == 0
        FakeSession.options.append(sess_options)
        self._opened = FakeSession.opens[providers[0][0]]
        if isinstance(self._opened, Exception):
            raise self._opened

    def get_providers(self) -> list[str]:
        assert not isinstance(self._opened, Exception)
        return self._opened


@pytest.fixture
def gpu_build(monkeypatch):
    """A build of ONNX Runtime with CUDA, whose sessions are the stand-in's."""
    preloaded: list[bool] = []
    monkeypatch.setattr(providers, "built_in", lambda: [CUDA, CPU])
    monkeypatch.setattr(providers, "preload_cuda", lambda: preloaded.append(True))
    monkeypatch.setattr(opening.onnxruntime, "InferenceSession", FakeSession)
    FakeSession.options = []
    return preloaded


def opened(providers: str | list[str] = "auto") -> list[str]:
    settings = ModelSettings.model_validate({"runtime": {"providers": providers}})
    return open_runtime_session(Path("model.onnx"), settings).get_providers()


def test_auto_takes_cuda_where_a_device_opens(gpu_build):
    """With its libraries loaded first, and one thread on the CPU."""
    FakeSession.opens = {CUDA: [CUDA, CPU]}
    assert opened() == [CUDA, CPU]
    assert gpu_build == [True]
    assert FakeSession.options[0].intra_op_num_threads == 1


@pytest.mark.parametrize("cuda", [RuntimeError("no CUDA-capable device is detected"), [CPU]])
@pytest.mark.usefixtures("gpu_build")
def test_auto_takes_the_cpu_where_none_does(cuda, caplog):
    """Whether ONNX Runtime says so or quietly leaves CUDA out; the log tells."""
    FakeSession.opens = {CUDA: cuda, CPU: [CPU]}
    assert opened() == [CPU]
    assert f"{CUDA} " in caplog.text
    assert "taking the next provider" in caplog.text


@pytest.mark.parametrize(
    ("cuda", "message"),
    [
        (
            RuntimeError("no CUDA-capable device is detected"),
            "cannot load model.onnx: no CUDA-capable device is detected",
        ),
        ([CPU], "cannot load model.onnx: expected providers .*CUDA.*, ONNX Runtime opened .*CPU"),
    ],
)
@pytest.mark.usefixtures("gpu_build")
def test_an_explicit_provider_that_does_not_open_is_an_error(cuda, message):
    """Nobody is served by a GPU that is a CPU."""
    FakeSession.opens = {CUDA: cuda}
    with pytest.raises(ModelLoadError, match=message):
        opened(["cuda"])


def test_the_cpu_needs_no_cuda_libraries(gpu_build):
    """They are large, and may not be there."""
    FakeSession.opens = {CPU: [CPU]}
    opened(["cpu"])
    assert gpu_build == []


def test_idle_threads_do_not_spin_unless_told(gpu_build):
    """Each would keep a core busy."""
    FakeSession.opens = {CPU: [CPU]}
    opened(["cpu"])
    assert FakeSession.options[0].get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert FakeSession.options[0].get_session_config_entry("session.inter_op.allow_spinning") == "0"


def declarations(model) -> tuple[list, list]:
    return declared(onnxruntime.InferenceSession(model.SerializeToString(), providers=[CPU]))


def test_inputs_with_defaults_are_optional():
    """They come after the others."""
    inputs, _ = declarations(onnx_models.optional_scale())
    assert inputs == [spec("x", ("batch", 3)), spec("scale", (), optional=True)]


def test_the_weights_of_old_models_are_no_inputs():
    """Before IR version 4, each weight had to be declared as an input."""
    inputs, _ = declarations(onnx_models.optional_scale(ir_version=3))
    assert inputs == [spec("x", ("batch", 3))]


@pytest.mark.parametrize(
    ("required", "default", "served"),
    [
        ("FP32", onnx.TensorProto.FLOAT8E4M3FN, False),
        ("BYTES", onnx.TensorProto.BFLOAT16, False),
        ("BF16", onnx.TensorProto.BFLOAT16, True),
        ("BYTES", onnx.TensorProto.FLOAT, True),
    ],
)
def test_an_input_with_a_default_does_not_keep_a_model_from_being_served(required, default, served):
    """What cannot be sent, or not beside the others, is not offered."""
    model = onnx_models.identity(dtypes.BY_NAME[required])
    scaled = onnx_models.optional_scale(default)
    model.graph.initializer.extend(scaled.graph.initializer)
    model.graph.input.extend(scaled.graph.input[1:])
    inputs, _ = declarations(model)
    assert [each.name for each in inputs] == (["x", "scale"] if served else ["x"])


def test_outputs_that_are_no_tensors_are_left_out(caplog):
    """With one warning that names them, and what to do about it."""
    model = onnx_models.label_and_maps()
    parts = onnx.helper.make_tensor_sequence_value_info("parts", onnx.TensorProto.FLOAT, None)
    model.graph.node.append(onnx.helper.make_node("SequenceConstruct", ["scores"], ["parts"]))
    model.graph.output.append(parts)
    _, outputs = declarations(model)
    assert outputs == [spec("label", ("batch",), datatype="INT64")]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert 'output "probabilities" is of type seq(map(int64,tensor(float)))' in record.message
    assert 'convert it with zipmap off (options={"zipmap": False})' in record.message
    assert 'output "parts" is of type seq(tensor(float))' in record.message


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (onnx_models.sequence_of_maps(), 'output "probabilities" is of type .*zipmap off'),
        (onnx_models.sequence_input(), 'input "parts" is of type'),
    ],
)
def test_without_an_output_that_can_be_sent_or_with_an_input_that_cannot_it_is_refused(model, message, caplog):
    """Nothing would be left to answer with, or to ask with."""
    with pytest.raises(ModelLoadError, match=message):
        declarations(model)
    assert caplog.records == []


def test_custom_operators_are_there_if_their_library_is_named(tmp_path):
    """And otherwise the model does not load."""
    path = onnx_models.save(onnx_models.custom_operator(), tmp_path / "model.onnx")
    settings = ModelSettings.model_validate({"runtime": {"custom_ops": ["onnxruntime-extensions"]}})
    session = open_runtime_session(path, settings)
    assert session.run(["loud"], {"text": np.array(["quiet"], object)})[0].tolist() == ["QUIET"]
    with pytest.raises(
        ModelLoadError, match=r"cannot load model.onnx: .*StringUpper.* is not a registered function/op"
    ):
        open_runtime_session(path, ModelSettings())


@pytest.mark.usefixtures("gpu_build")
def test_a_library_that_does_not_load_is_no_reason_for_another_provider(caplog):
    """The model is refused at once, whatever there is to run it on."""
    settings = ModelSettings.model_validate({"runtime": {"custom_ops": ["missing.so"]}})
    with pytest.raises(ModelLoadError, match=r"^runtime.custom_ops: missing.so: .*No such file"):
        open_runtime_session(Path("model.onnx"), settings)
    assert caplog.records == []

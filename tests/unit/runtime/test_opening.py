"""Fallback between providers with a fake of ONNX Runtime's sessions, and declared tensors."""

import logging
import os
import sys
import threading
from contextlib import suppress
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
from inferd.runtime.resources import usable_cores
from tests import onnx_models, onnx_traps
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
    """A build of ONNX Runtime with CUDA, with fake sessions."""
    preloaded: list[bool] = []
    monkeypatch.setattr(providers, "built_in", lambda: [CUDA, CPU])
    monkeypatch.setattr(providers, "preload_cuda", lambda: preloaded.append(True))
    monkeypatch.setattr(opening.onnxruntime, "InferenceSession", FakeSession)
    FakeSession.options = []
    return preloaded


_THREADS = Path("/proc/self/task")


def opened(providers: str | list[str] = "auto") -> list[str]:
    settings = ModelSettings.model_validate({"runtime": {"providers": providers}})
    return open_runtime_session(Path("model.onnx"), settings).get_providers()


def test_auto_uses_cuda_if_device_opens(gpu_build):
    """After preloading its libraries, with one CPU thread."""
    FakeSession.opens = {CUDA: [CUDA, CPU]}
    assert opened() == [CUDA, CPU]
    assert gpu_build == [True]
    assert FakeSession.options[0].intra_op_num_threads == 1


@pytest.mark.parametrize("cuda", [RuntimeError("no CUDA-capable device is detected"), [CPU]])
@pytest.mark.usefixtures("gpu_build")
def test_auto_falls_back_to_cpu(cuda, caplog):
    """Whether ONNX Runtime raises or silently omits CUDA; it is logged."""
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
def test_rejects_explicit_provider_that_does_not_open(cuda, message):
    """The CPU never stands in for a requested GPU."""
    FakeSession.opens = {CUDA: cuda}
    with pytest.raises(ModelLoadError, match=message):
        opened(["cuda"])


def test_cpu_does_not_load_cuda_libraries(gpu_build):
    """They are large and may be missing."""
    FakeSession.opens = {CPU: [CPU]}
    opened(["cpu"])
    assert gpu_build == []


def test_idle_threads_do_not_spin_by_default(gpu_build):
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


def test_weights_of_old_models_are_not_inputs():
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
def test_drops_optional_inputs_that_cannot_be_sent(required, default, served):
    """Or not together with the others."""
    model = onnx_models.identity(dtypes.BY_NAME[required])
    scaled = onnx_models.optional_scale(default)
    model.graph.initializer.extend(scaled.graph.initializer)
    model.graph.input.extend(scaled.graph.input[1:])
    inputs, _ = declarations(model)
    assert [each.name for each in inputs] == (["x", "scale"] if served else ["x"])


def test_drops_outputs_that_are_not_tensors(caplog):
    """With one warning that names them and the remedy."""
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
def test_rejects_model_without_servable_inputs_or_outputs(model, message, caplog):
    """Required inputs, and at least one output."""
    with pytest.raises(ModelLoadError, match=message):
        declarations(model)
    assert caplog.records == []


def test_loads_configured_custom_operators(tmp_path):
    """Without them the model does not load."""
    path = onnx_models.save(onnx_traps.custom_operator(), tmp_path / "model.onnx")
    settings = ModelSettings.model_validate({"runtime": {"custom_ops": ["onnxruntime-extensions"]}})
    session = open_runtime_session(path, settings)
    assert session.run(["loud"], {"text": np.array(["quiet"], object)})[0].tolist() == ["QUIET"]
    with pytest.raises(
        ModelLoadError, match=r"cannot load model.onnx: .*StringUpper.* is not a registered function/op"
    ):
        open_runtime_session(path, ModelSettings())


@pytest.mark.usefixtures("gpu_build")
def test_does_not_fall_back_if_library_fails(caplog):
    """The model is rejected at once, with any provider."""
    settings = ModelSettings.model_validate({"runtime": {"custom_ops": ["missing.so"]}})
    with pytest.raises(ModelLoadError, match=r"^runtime.custom_ops: missing.so: .*No such file"):
        open_runtime_session(Path("model.onnx"), settings)
    assert caplog.records == []


def test_options_of_the_session(gpu_build):
    """Each setting of ONNX Runtime reaches it; 0 threads between operators are the available cores, in parallel."""
    FakeSession.opens = {CPU: [CPU]}
    runtime = {
        "providers": ["cpu"],
        "inter_op_threads": 0,
        "graph_optimization": "basic",
        "memory_arena": False,
        "memory_pattern": False,
        "session_options": {"session.disable_prepacking": 1},
    }
    open_runtime_session(Path("model.onnx"), ModelSettings.model_validate({"runtime": runtime}))
    (options,) = FakeSession.options
    assert options.inter_op_num_threads == usable_cores()
    assert options.execution_mode.name == ("ORT_PARALLEL" if usable_cores() > 1 else "ORT_SEQUENTIAL")
    assert options.graph_optimization_level.name == "ORT_ENABLE_BASIC"
    assert (options.enable_cpu_mem_arena, options.enable_mem_pattern) == (False, False)
    assert options.get_session_config_entry("session.disable_prepacking") == "1"


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
@pytest.mark.parametrize(("options", "nice"), [({}, 2), ({"nice": 7}, 7)], ids=["default", "language_model"])
def test_threads_of_a_session_give_way(tmp_path, options, nice):
    """The threads of ONNX Runtime, not the one that opens the session."""

    def niceness() -> dict[str, int]:
        found = {}
        for thread in _THREADS.iterdir():
            with suppress(ProcessLookupError):  # one that was ending
                found[thread.name] = os.getpriority(os.PRIO_PROCESS, int(thread.name))
        return found

    path = onnx_models.save(onnx_models.linear(), tmp_path / "model.onnx")
    before = niceness()
    settings = ModelSettings.model_validate({"runtime": {"intra_op_threads": 3, "providers": ["cpu"]}})
    session = open_runtime_session(path, settings, **options)
    after = niceness()
    own = before[str(threading.get_native_id())]
    assert session.get_session_options().intra_op_num_threads == 3
    # A thread of an earlier test may have begun meanwhile.
    started = [found for thread, found in after.items() if thread not in before]
    assert started.count(min(own + nice, 19)) >= 2
    assert after[str(threading.get_native_id())] == own

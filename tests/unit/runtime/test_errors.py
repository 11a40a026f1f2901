"""Log texts of failed runs: where and how, without values from requests."""

import logging

import numpy as np
import onnxruntime
import pytest

from inferd import dtypes
from inferd.config.settings import ModelSettings
from inferd.runtime.errors import RunFailedError, RunFailure, failure_of
from inferd.runtime.runners import BoundRunner, DirectRunner
from inferd.runtime.session import open_session
from tests import onnx_models
from tests.unit.runtime.specs import spec

PLANTED = 918273645192837

FAILURES = {
    "an index": (onnx_models.lookup, {"index": np.array([PLANTED])}, 'in Gather ""'),
    "within a graph": (
        onnx_models.nested_lookup,
        {"index": np.array([PLANTED]), "which": np.array(True)},
        'in If "outer", Gather "inner"',
    ),
    "a shape": (
        onnx_models.unknown_output_rank,
        {"x": np.ones((1, 4), np.float32), "shape": np.array([PLANTED])},
        'in Reshape "" at reshape_helper.h:',
    ),
    "a size": (onnx_models.zeros, {"size": np.array([PLANTED])}, ": Failed to allocate memory"),
}


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize(("model", "inputs", "said"), FAILURES.values(), ids=FAILURES)
def test_message_does_not_quote_value(model, inputs, said, bound):
    """ONNX Runtime's own texts do, in direct and bound runs."""
    session = onnxruntime.InferenceSession(model().SerializeToString(), providers=["CPUExecutionProvider"])
    runner = DirectRunner(session, [], [])
    if bound:
        specs = [spec(each.name, (), datatype=dtypes.BY_ONNX[each.type].name) for each in session.get_inputs()]
        runner = BoundRunner(session, specs, device="cpu", device_id=0)
    with pytest.raises(Exception, match="Non-zero status code") as failed:
        runner.run(inputs, ["y"])
    text = str(RunFailedError(failed.value))
    assert text.startswith(type(failed.value).__name__)
    assert said in text
    assert str(PLANTED) not in text


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (ValueError("no number: 'planted'"), "ValueError"),
        (RuntimeError("planted in Gather node. Name:'planted' Status Message: planted"), "RuntimeError"),
        (
            RuntimeError("Error in execution: Non-zero status code returned while running Cast node. Name:'a\nb' "
                         "Status Message: planted.txt:12 is no number"),
            'RuntimeError in Cast "a\nb"',
        ),
    ],
)  # fmt: skip
def test_drops_unknown_text(cause, said):
    """It could quote a value."""
    assert str(RunFailedError(cause)) == said


_FAILED_IN = "Non-zero status code returned while running Tile node. Name:'t' Status Message: "
_NODE = f"[ONNXRuntimeError] : 1 : FAIL : {_FAILED_IN}"
_ARENA = (
    "/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:360 "
    "void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) "
)
_CUDA = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:129 std::conditional_t<THRW, void, Status> "
    "onnxruntime::CudaCall(ERRTYPE, const char*, int) [with ERRTYPE = cudaError; bool THRW = true] "
)
_BINDING = f"Error in execution: {_FAILED_IN}"


@pytest.mark.parametrize(
    "text",
    [
        f"{_NODE}std::bad_alloc",
        "std::bad_alloc",
        f"{_NODE}{_ARENA}Failed to allocate memory for requested buffer of size 134217728\n",
        f"[ONNXRuntimeError] : 1 : FAIL : {_ARENA}Available memory of 8 is smaller than requested bytes of 9",
        f"{_BINDING}{_CUDA}CUDA failure 2: out of memory ; GPU=0 ; hostname=gpu ; expr=cudaMalloc(&p, size);",
        f"{_BINDING}{_CUDA}CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; hostname=gpu",
    ],
)
def test_recognizes_lack_of_memory(text):
    """Of the host and of devices, in direct and bound runs."""
    assert failure_of(RunFailedError(RuntimeError(text))) is RunFailure.OUT_OF_MEMORY
    assert str(RunFailedError(RuntimeError(text))).endswith(": Failed to allocate memory")


@pytest.mark.parametrize(
    "reason",
    [
        "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=gpu",
        "CUDA failure 710: device-side assert triggered ; GPU=0",
        "CUDA failure 719: unspecified launch failure ; GPU=0",
        "CUDNN failure 5003: CUDNN_STATUS_EXECUTION_FAILED ; GPU=0",
    ],
)
def test_recognizes_device_errors_that_stay(reason):
    """And names them in the log."""
    error = RunFailedError(RuntimeError(f"{_BINDING}{_CUDA}{reason}"))
    assert failure_of(error) is RunFailure.DEVICE
    assert str(error).endswith(": the device failed")


@pytest.mark.parametrize(
    "text",
    [
        f"{_NODE}CUDA failure 1: invalid argument ; GPU=0",
        f"{_NODE}/onnxruntime_src/onnxruntime/core/providers/cpu/math/gemm.cc:12 indices element out of bounds",
        f"{_NODE}/onnxruntime_src/onnxruntime/core/util/words.cc:12 no such word: {_CUDA}CUDA failure 700: planted",
        f"{_NODE}/onnxruntime_src/onnxruntime/core/providers/cpu/words.cc:12 no such word: CUDA failure 700: planted",
        f"{_NODE}no such word: std::bad_alloc",
        f"{_NODE}no such word: Failed to allocate memory for requested buffer of size 8",
    ],
)
def test_no_input_passes_for_another_failure(text):
    """A caller whose text an operator quotes must not decide what is done with the session."""
    assert failure_of(RunFailedError(RuntimeError(text))) is RunFailure.OTHER


def test_python_without_memory():
    """Where numpy stacks rows or splits outputs, and within a run."""
    assert failure_of(MemoryError()) is failure_of(RunFailedError(MemoryError())) is RunFailure.OUT_OF_MEMORY
    assert failure_of(ValueError("std::bad_alloc")) is RunFailure.OTHER


def test_session_error_has_traceback_but_no_cause(tmp_path, caplog):
    """The text of the cause would be logged."""
    path = onnx_models.save(onnx_models.lookup(), tmp_path / "model.onnx")
    session = open_session(path, ModelSettings())
    with pytest.raises(RunFailedError) as failed:
        session.run({"index": np.array([PLANTED])}, ["y"])
    assert str(PLANTED) in str(failed.value.cause)
    logging.getLogger("test").error("failed", exc_info=failed.value)
    assert "runners.py" in caplog.text
    assert 'RunFailedError: InvalidArgument in Gather ""' in caplog.text
    assert str(PLANTED) not in caplog.text


def test_onnx_runtime_does_not_log(tmp_path, capfd):
    """Its log would bypass ours on standard error."""
    path = onnx_models.save(onnx_models.lookup(), tmp_path / "model.onnx")
    with pytest.raises(RunFailedError):
        open_session(path, ModelSettings()).run({"index": np.array([PLANTED])}, ["y"])
    assert "".join(capfd.readouterr()) == ""

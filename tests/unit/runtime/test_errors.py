"""Log texts of failed runs: where and how, without values from requests."""

import logging

import numpy as np
import onnxruntime
import pytest

from inferd import dtypes
from inferd.config.settings import ModelSettings
from inferd.runtime.errors import RunFailedError
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

"""A result is a mapping of its outputs."""

from collections.abc import Mapping

import numpy as np
import pytest

from inferd.client import Result, Timing

TIMING = Timing(queue_s=0.1, run_s=0.2, batch_rows=3)


def _result(**outputs: np.ndarray) -> Result:
    return Result(outputs=outputs, model="m", version="1", request_id="r", timing=TIMING)


def test_result_is_a_mapping():
    """All ways of reading a mapping, in the order of the outputs."""
    label, score = np.array([1, 2]), np.array([0.5, 0.25])
    result = _result(label=label, score=score)
    assert isinstance(result, Mapping)
    assert list(result) == ["label", "score"]
    assert len(result) == 2
    assert "label" in result
    assert "other" not in result
    assert dict(result) == {"label": label, "score": score}
    assert [name for name, _ in result.items()] == list(result.keys()) == ["label", "score"]
    assert list(result.values()) == [label, score]
    assert result.get("other") is None
    with pytest.raises(KeyError, match="other"):
        result["other"]
    assert {**result} == {"label": label, "score": score}
    match result:
        case {"label": found}:
            assert found is label


def test_attributes():
    """The outputs are an attribute too."""
    result = _result(x=np.array(1))
    assert result.outputs["x"] is result["x"]
    assert (result.model, result.version, result.request_id, result.timing) == ("m", "1", "r", TIMING)
    assert result.metadata == {}


def test_results_are_equal_to_themselves():
    """Comparing arrays gives arrays, so results are compared and hashed by identity."""
    one, other = _result(x=np.array([1, 2])), _result(x=np.array([1, 2]))
    assert one == one
    assert one != other
    assert one != dict(one)
    assert len({one, other, one}) == 2


def test_result_without_outputs_is_true():
    """It is not mistaken for None."""
    assert _result()
    assert len(_result()) == 0

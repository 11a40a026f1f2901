"""Stacking of requests, splitting of outputs, and chunks of large requests."""

import ml_dtypes
import numpy as np
import pytest

from inferd.runtime.stacking import RowsDoNotFollowError, chunks, join, split, stack
from tests.unit.runtime.specs import signature, spec

FIRST_AXIS = signature([spec("x", ("batch", 2), 0)], [spec("y", ("batch", 2), 0)])
WITH_SHARED = signature(
    [spec("x", ("batch", 2), 0), spec("factor", ())], [spec("y", ("batch", 2), 0), spec("classes", (3,))]
)
SECOND_AXIS = signature([spec("x", ("time", "batch"), 1)], [spec("y", ("batch",), 0), spec("z", ("time", "batch"), 1)])
UNBATCHABLE = signature([spec("x", (1, 2))], [spec("y", (1, 2))])


def rows(*values: float) -> np.ndarray:
    return np.array([[value, value] for value in values], np.float32)


def test_does_not_copy_single_request():
    """A batch of one passes its own arrays."""
    x = rows(1, 2)
    assert stack(FIRST_AXIS, [{"x": x}])["x"] is x


def test_concatenates_requests_in_order():
    """Rows are in the order of the requests."""
    stacked = stack(FIRST_AXIS, [{"x": rows(1)}, {"x": rows(2, 3)}])
    np.testing.assert_array_equal(stacked["x"], rows(1, 2, 3))


def test_takes_shared_input_from_first_request():
    """A scalar that all requests agree on is not stacked."""
    factor = np.array(2, np.float32)
    stacked = stack(WITH_SHARED, [{"x": rows(1), "factor": factor}, {"x": rows(2), "factor": factor.copy()}])
    assert stacked["factor"] is factor
    assert stacked["x"].shape == (2, 2)


def test_stacks_along_batch_axis():
    """It need not be the first axis."""
    first, second = np.zeros((3, 1), np.float32), np.ones((3, 2), np.float32)
    stacked = stack(SECOND_AXIS, [{"x": first}, {"x": second}])
    np.testing.assert_array_equal(stacked["x"], [[0, 1, 1]] * 3)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.array([["a", "b"]], object), np.array([["c", "d"]], object)),
        (np.array([[1, 2]], ml_dtypes.bfloat16), np.array([[3, 4]], ml_dtypes.bfloat16)),
    ],
)
def test_stacks_any_element_type(first, second):
    """Strings and types unknown to numpy keep their dtype."""
    stacked = stack(FIRST_AXIS, [{"x": first}, {"x": second}])["x"]
    assert stacked.dtype == first.dtype
    assert stacked.tolist() == [*first.tolist(), *second.tolist()]


def test_stacks_unaligned_view():
    """A view of a message at an odd offset."""
    message = bytes(3) + np.array([1, 1], np.float32).tobytes()
    view = np.frombuffer(message, np.float32, offset=3).reshape(1, 2)
    assert not view.flags.aligned
    np.testing.assert_array_equal(stack(FIRST_AXIS, [{"x": view}, {"x": rows(2)}])["x"], rows(1, 2))


def test_rejects_several_requests_to_unbatchable_model():
    """Using only the first would lose the others."""
    with pytest.raises(ValueError, match=r"expected a single request .* got 2"):
        stack(UNBATCHABLE, [{"x": rows(1)}, {"x": rows(2)}])


def test_splits_into_views():
    """Without copies."""
    y = rows(1, 2, 3)
    first, second = split(FIRST_AXIS, {"y": y}, [1, 2])
    np.testing.assert_array_equal(first["y"], rows(1))
    np.testing.assert_array_equal(second["y"], rows(2, 3))
    assert np.shares_memory(second["y"], y)


def test_splits_along_axis_of_each_output():
    """Outputs may have different batch axes."""
    y, z = np.arange(3, dtype=np.float32), np.arange(6, dtype=np.float32).reshape(2, 3)
    first, second = split(SECOND_AXIS, {"y": y, "z": z}, [2, 1])
    assert first["y"].tolist() == [0, 1]
    assert second["y"].tolist() == [2]
    assert first["z"].tolist() == [[0, 1], [3, 4]]
    assert second["z"].tolist() == [[2], [5]]


def test_output_without_batch_axis_goes_to_all_requests():
    """As a whole."""
    classes = np.array([10, 20, 30], np.float32)
    parts = split(WITH_SHARED, {"y": rows(1, 2), "classes": classes}, [1, 1])
    assert all(part["classes"] is classes for part in parts)


def test_splits_requested_outputs_only():
    """A batch may request some of the outputs."""
    assert [list(part) for part in split(WITH_SHARED, {"y": rows(1)}, [1])] == [["y"]]


@pytest.mark.parametrize("shape", [(2, 2), (4, 2), ()])
def test_rejects_wrong_number_of_rows(shape):
    """No request may receive another's rows."""
    wrong = np.zeros(shape, np.float32)
    with pytest.raises(RowsDoNotFollowError, match='output "y": expected 3 rows along axis 0'):
        split(FIRST_AXIS, {"y": wrong}, [1, 2])
    with pytest.raises(RowsDoNotFollowError, match='output "y": expected 3 rows along axis 0'):
        join(FIRST_AXIS, [{"y": wrong}], [3])


def test_single_request_gets_outputs_unchanged():
    """Whatever their shape."""
    y = np.zeros((7, 2), np.float32)
    assert split(FIRST_AXIS, {"y": y}, [2])[0]["y"] is y


def test_unbatchable_outputs_go_to_single_request():
    """Whatever their shape."""
    y = rows(1)
    assert split(UNBATCHABLE, {"y": y}, [1])[0]["y"] is y


def test_splits_large_request_into_views():
    """Of limited rows, without copies."""
    x = rows(1, 2, 3, 4, 5)
    factor = np.array(2, np.float32)
    pieces = list(chunks(WITH_SHARED, {"x": x, "factor": factor}, 2))
    assert [len(piece["x"]) for piece in pieces] == [2, 2, 1]
    assert all(np.shares_memory(piece["x"], x) for piece in pieces)
    assert all(piece["factor"] is factor for piece in pieces)


def test_stacks_and_splits_optional_inputs():
    """If they are present."""
    signature_ = signature(
        [
            spec("state", ("batch", 2), 0, optional=True),
            spec("x", ("batch", 2), 0),
            spec("factor", (), optional=True),
        ]
    )
    assert list(stack(signature_, [{"x": rows(1)}, {"x": rows(2)}])) == ["x"]
    factor = np.array(2, np.float32)
    given = [{"x": rows(n), "state": rows(n + 10), "factor": factor} for n in (1, 2)]
    stacked = stack(signature_, given)
    assert stacked["factor"] is factor
    np.testing.assert_array_equal(stacked["state"], rows(11, 12))
    assert [list(piece) for piece in chunks(signature_, {"x": rows(1, 2)}, 1)] == [["x"], ["x"]]
    pieces = list(chunks(signature_, stacked, 1))
    assert [piece["state"].tolist() for piece in pieces] == [[[11, 11]], [[12, 12]]]
    assert all(piece["factor"] is factor for piece in pieces)


def test_joins_outputs_of_chunks():
    """Outputs without a batch axis are not repeated."""
    classes = np.array([10, 20, 30], np.float32)
    joined = join(WITH_SHARED, [{"y": rows(1, 2), "classes": classes}, {"y": rows(3), "classes": classes}], [2, 1])
    np.testing.assert_array_equal(joined["y"], rows(1, 2, 3))
    assert joined["classes"] is classes

"""Stacking and splitting, case by case; the property tests have the round trips."""

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


def test_a_single_request_is_not_copied():
    """A batch of one hands its own arrays on."""
    x = rows(1, 2)
    assert stack(FIRST_AXIS, [{"x": x}])["x"] is x


def test_requests_are_put_one_behind_the_other():
    """Rows come in the order of the requests."""
    stacked = stack(FIRST_AXIS, [{"x": rows(1)}, {"x": rows(2, 3)}])
    np.testing.assert_array_equal(stacked["x"], rows(1, 2, 3))


def test_a_shared_input_is_taken_from_the_first_request():
    """A scalar that all requests agree on is not stacked."""
    factor = np.array(2, np.float32)
    stacked = stack(WITH_SHARED, [{"x": rows(1), "factor": factor}, {"x": rows(2), "factor": factor.copy()}])
    assert stacked["factor"] is factor
    assert stacked["x"].shape == (2, 2)


def test_rows_are_stacked_along_the_batch_axis():
    """The batch axis need not be the first."""
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
def test_any_element_type_can_be_stacked(first, second):
    """Strings and types that numpy itself does not have keep their dtype."""
    stacked = stack(FIRST_AXIS, [{"x": first}, {"x": second}])["x"]
    assert stacked.dtype == first.dtype
    assert stacked.tolist() == [*first.tolist(), *second.tolist()]


def test_an_unaligned_view_is_stacked():
    """A view over a message at an odd offset is read right."""
    message = bytes(3) + np.array([1, 1], np.float32).tobytes()
    view = np.frombuffer(message, np.float32, offset=3).reshape(1, 2)
    assert not view.flags.aligned
    np.testing.assert_array_equal(stack(FIRST_AXIS, [{"x": view}, {"x": rows(2)}])["x"], rows(1, 2))


def test_several_requests_to_an_unbatchable_model_are_refused():
    """Taking only the first of them would lose the others' answers."""
    with pytest.raises(ValueError, match=r"expected a single request .* got 2"):
        stack(UNBATCHABLE, [{"x": rows(1)}, {"x": rows(2)}])


def test_each_request_gets_its_rows_as_views():
    """Splitting copies nothing."""
    y = rows(1, 2, 3)
    first, second = split(FIRST_AXIS, {"y": y}, [1, 2])
    np.testing.assert_array_equal(first["y"], rows(1))
    np.testing.assert_array_equal(second["y"], rows(2, 3))
    assert np.shares_memory(second["y"], y)


def test_outputs_are_split_along_their_own_axes():
    """Each output has a batch axis of its own."""
    y, z = np.arange(3, dtype=np.float32), np.arange(6, dtype=np.float32).reshape(2, 3)
    first, second = split(SECOND_AXIS, {"y": y, "z": z}, [2, 1])
    assert first["y"].tolist() == [0, 1]
    assert second["y"].tolist() == [2]
    assert first["z"].tolist() == [[0, 1], [3, 4]]
    assert second["z"].tolist() == [[2], [5]]


def test_an_output_without_a_batch_axis_goes_to_everyone():
    """The whole of it, not a part."""
    classes = np.array([10, 20, 30], np.float32)
    parts = split(WITH_SHARED, {"y": rows(1, 2), "classes": classes}, [1, 1])
    assert all(part["classes"] is classes for part in parts)


def test_only_the_outputs_that_were_run_are_split():
    """A batch may ask for some of the outputs."""
    assert [list(part) for part in split(WITH_SHARED, {"y": rows(1)}, [1])] == [["y"]]


@pytest.mark.parametrize("shape", [(2, 2), (4, 2), ()])
def test_a_wrong_number_of_rows_is_an_error(shape):
    """Nobody gets somebody else's rows."""
    wrong = np.zeros(shape, np.float32)
    with pytest.raises(RowsDoNotFollowError, match='output "y": expected 3 rows along axis 0'):
        split(FIRST_AXIS, {"y": wrong}, [1, 2])
    with pytest.raises(RowsDoNotFollowError, match='output "y": expected 3 rows along axis 0'):
        join(FIRST_AXIS, [{"y": wrong}], [3])


def test_a_request_that_ran_alone_gets_what_came_out():
    """Whatever its shape: nobody else could be given its rows."""
    y = np.zeros((7, 2), np.float32)
    assert split(FIRST_AXIS, {"y": y}, [2])[0]["y"] is y


def test_an_unbatchable_model_s_outputs_go_to_its_only_request():
    """One request, whatever the shapes."""
    y = rows(1)
    assert split(UNBATCHABLE, {"y": y}, [1])[0]["y"] is y


def test_a_large_request_is_cut_into_views():
    """Each piece has at most so many rows, and no row is copied."""
    x = rows(1, 2, 3, 4, 5)
    factor = np.array(2, np.float32)
    pieces = list(chunks(WITH_SHARED, {"x": x, "factor": factor}, 2))
    assert [len(piece["x"]) for piece in pieces] == [2, 2, 1]
    assert all(np.shares_memory(piece["x"], x) for piece in pieces)
    assert all(piece["factor"] is factor for piece in pieces)


def test_optional_inputs_are_stacked_and_cut_like_others():
    """If they are given, and otherwise not at all."""
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


def test_the_answers_of_pieces_are_joined():
    """Outputs without a batch axis are not repeated."""
    classes = np.array([10, 20, 30], np.float32)
    joined = join(WITH_SHARED, [{"y": rows(1, 2), "classes": classes}, {"y": rows(3), "classes": classes}], [2, 1])
    np.testing.assert_array_equal(joined["y"], rows(1, 2, 3))
    assert joined["classes"] is classes

"""What a model declares against how it behaves, with models written in numpy."""

from collections.abc import Callable, Mapping

import ml_dtypes
import numpy as np
import pytest

from inferd.config.settings import TensorOverride
from inferd.runtime.inspection import Inspection
from inferd.runtime.proof import MadeUpInputs, Proof, prove
from inferd.runtime.signature import TensorSpec
from tests.unit.runtime.specs import signature, spec

Model = Callable[[np.ndarray], np.ndarray]
X = spec("x", ("batch", 3), 0)


def proof_of(
    model: Model,
    output: TensorSpec,
    *,
    x: TensorSpec = X,
    overrides: Mapping[str, TensorOverride] | None = None,
) -> Proof:
    claimed = Inspection(signature=signature([x], [output]))
    return prove(claimed, lambda inputs: {output.name: model(inputs["x"])}, overrides or {})


def test_a_true_claim_stands():
    """Rows follow, and each answer is its own."""
    proof = proof_of(lambda x: x * 2 + 1, spec("y", ("batch", 3), 0))
    assert proof.inspection.signature.batchable
    assert (proof.contradiction, proof.influence) == ("", "")


@pytest.mark.parametrize(
    ("model", "output", "what"),
    [
        pytest.param(lambda x: x[:1], spec("y", ("rows", 3), 0), "it is [1,3] for one row and [1,3] for 4", id="one"),
        pytest.param(lambda x: x @ x.T, spec("y", (None, None), 0), "[1,1] for one row and [4,4] for 4", id="pairs"),
        pytest.param(lambda x: x.ravel(), spec("y", (None,), 0), "[3] for one row and [12] for 4", id="flattened"),
        pytest.param(lambda x: x.sum(), spec("y", ("batch",), 0), "[] for one row and [] for 4", id="scalar"),
        pytest.param(lambda x: x[0], spec("y", ()), "no output has a dimension that follows", id="rank not told"),
    ],
)
def test_rows_that_do_not_follow_are_found(model, output, what):
    """The model is not batchable, with a reason that shows the shapes."""
    proof = proof_of(model, output)
    assert what in proof.contradiction
    assert not proof.inspection.signature.batchable
    assert proof.inspection.why_not_batchable == proof.contradiction


def test_a_model_that_runs_only_with_one_row_is_found():
    """Whatever it declares."""

    def model(x: np.ndarray) -> np.ndarray:
        return x.reshape(1, 3)

    proof = proof_of(model, spec("y", ("batch", 3), 0))
    assert proof.contradiction == "the model runs with one row, but not with 4"


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda x: x - x.mean(axis=0, keepdims=True), id="mean over the batch"),
        pytest.param(lambda x: x.cumsum(axis=0), id="sum of the rows before"),
        pytest.param(lambda x: x[::-1].cumsum(axis=0)[::-1], id="sum of the rows after"),
        pytest.param(lambda x: x[::-1], id="other order"),
    ],
)
def test_rows_that_influence_each_other_are_found(model):
    """Their batched answers would not be those of the same requests alone."""
    proof = proof_of(model, spec("y", ("batch", 3), 0))
    assert proof.influence == 'the values of output "y" depend on the other rows of a batch'
    assert proof.contradiction == ""


def test_a_shared_output_that_depends_on_the_rows_is_found():
    """It would tell each caller about all of them."""
    claimed = Inspection(signature=signature([X], [spec("y", ("batch", 3), 0), spec("loss", (1,))]))
    proof = prove(claimed, lambda inputs: {"y": inputs["x"], "loss": inputs["x"].mean(keepdims=True)[0]}, {})
    assert 'output "loss"' in proof.influence


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_rounding_is_no_influence(dtype):
    """Kernels for other batch sizes add up in another order."""

    def model(x: np.ndarray) -> np.ndarray:
        return ((x + 1) * (1 + 0.002 * len(x))).astype(dtype)

    names = {np.float16: "FP16", np.float32: "FP32", np.float64: "FP64", ml_dtypes.bfloat16: "BF16"}
    assert proof_of(model, spec("y", ("batch", 3), 0, names[dtype])).influence == ""


def test_not_a_number_is_no_influence():
    """The same nonsense twice is the same."""
    assert proof_of(lambda x: x * np.nan, spec("y", ("batch", 3), 0)).influence == ""
    assert proof_of(lambda x: x + np.inf, spec("y", ("batch", 3), 0)).influence == ""


def test_whole_numbers_are_not_compared():
    """The class of equal scores may be another one in a batch."""
    proof = proof_of(lambda x: np.full(len(x), len(x), np.int64), spec("label", ("batch",), 0, "INT64"))
    assert proof.influence == ""


def test_the_axis_of_an_output_without_declared_shape_is_found():
    """From how its shape grows."""
    proof = proof_of(lambda x: np.moveaxis(x[:, None], 0, 1), spec("y", ()))
    assert proof.inspection.signature.outputs == (spec("y", (None, None, None), 1),)


def test_the_rank_of_an_unbatchable_model_s_output_is_found():
    """Clients see a shape instead of a scalar."""
    proof = proof_of(lambda x: x.copy(), spec("y", ()), x=spec("x", (1, 3)))
    assert proof.inspection.signature.outputs == (spec("y", (None, None)),)


def test_a_model_that_needs_room_gets_it():
    """Larger sizes of open dimensions are tried until one runs."""

    def model(x: np.ndarray) -> np.ndarray:
        assert x.shape[1] >= 20
        return x[:, :1]

    proof = proof_of(model, spec("y", ("batch", 1), 0), x=spec("x", ("batch", "length"), 0))
    assert proof.made_up is not None
    assert proof.made_up.open_size == 32


def test_a_model_that_never_runs_is_left_as_declared():
    """Nothing is known against it."""

    def model(_: np.ndarray) -> np.ndarray:
        raise RuntimeError

    proof = proof_of(model, spec("y", ("batch", 3), 0))
    assert proof.made_up is None
    assert proof.inspection.signature.batchable


def test_a_model_that_does_not_run_on_ones_is_tried_with_zeros():
    """A table with one entry has no second one."""

    def model(x: np.ndarray) -> np.ndarray:
        return np.array([7.0], np.float32)[x]

    proof = proof_of(model, spec("y", ("batch",), 0), x=spec("x", ("batch",), 0, "INT64"))
    assert proof.inspection.signature.batchable
    assert proof.contradiction == ""


def test_made_up_inputs_follow_the_warmup_shape():
    """But for the rows, which are asked for."""
    made_up = MadeUpInputs(
        signature=signature([spec("x", ("batch", "time", 2), 0), spec("words", (None,), datatype="BYTES")]),
        overrides={"x": TensorOverride(warmup_shape=[1, 80, 2]), "words": TensorOverride(batch_axis=None)},
        open_size=8,
    )
    inputs = made_up.rows(3)
    assert inputs["x"].shape == (3, 80, 2)
    assert inputs["words"].tolist() == [b"1"] * 8
    made_up.signature.check(inputs)

"""Verification of candidate batch axes by runs of models written in numpy."""

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from inferd.runtime.batch_axes.inference import Candidate
from inferd.runtime.batch_axes.input_search import Hints
from inferd.runtime.batch_axes.verdict import Standing
from inferd.runtime.batch_axes.verification import Verification, verify_batch_axes
from inferd.runtime.row_analysis.analysis import GraphAnalysis
from inferd.runtime.signature import TensorSpec
from tests.fakes import FakeClock
from tests.unit.runtime.specs import signature, spec

Model = Callable[[np.ndarray], np.ndarray]
X = spec("x", ("batch", 3), 0)
Y = spec("y", ("batch", 3), 0)
INT_Y = spec("y", ("batch",), 0, "INT64")


def verification_of(
    model: Model, output: TensorSpec = Y, *, x: TensorSpec = X, more: tuple = (), **known
) -> Verification:
    candidate = Candidate(signature=signature([x, *more], [output]))
    return verify_batch_axes(candidate, lambda inputs: {output.name: model(**inputs)}, clock=FakeClock(), **known)


def standing(*arguments, **known) -> Standing:
    return verification_of(*arguments, **known).verdict.standing


def test_proves_row_wise_model():
    """Each output row depends on its own input row."""
    verification = verification_of(lambda x: x * 2 + 1)
    assert (verification.verdict.standing, verification.verdict.reason) == (Standing.PROVEN, "")
    assert verification.signature.batchable


@pytest.mark.parametrize(
    ("model", "output", "what"),
    [
        pytest.param(lambda x: x[:1], Y, "is [1,3] for one row and [1,3] for 2", id="one row"),
        pytest.param(lambda x: x @ x.T, spec("y", (None, None), 0), "[1,1] for one row and [2,2] for 2", id="pairs"),
        pytest.param(lambda x: x.ravel(), spec("y", (None,), 0), "is of shape [3] for one row", id="flattened"),
        pytest.param(lambda x: x.sum(), spec("y", ("batch",), 0), "is of shape [] for one row", id="scalar"),
        pytest.param(lambda x: x[0], spec("y", ()), "no output has a dimension that follows", id="rank not declared"),
        pytest.param(lambda x: x.reshape(1, 3), Y, "runs with one row, but not with 3", id="only one row runs"),
    ],
)
def test_detects_outputs_that_cannot_be_split(model, output, what):
    """Not batchable even if configured: outputs could not be split."""
    verification = verification_of(model, output)
    assert what in verification.verdict.reason
    assert (verification.verdict.standing, verification.verdict.shape_mismatch) == (Standing.CONTRADICTED, True)
    assert not verification.signature.batchable
    assert not verification_of(model, output, configured=True).verdict.allows_batching


def normalised(x):
    return (x - x.mean(axis=1, keepdims=True)) / (x.std(axis=1, keepdims=True) + 1e-5)


def attended(x):
    z = normalised(x)
    weights = np.exp(z @ z.T)
    return (weights / weights.sum(axis=1, keepdims=True)) @ z


@pytest.mark.parametrize(
    ("model", "output"),
    [
        pytest.param(lambda x: x - x.mean(axis=0, keepdims=True), Y, id="mean over the batch"),
        pytest.param(lambda x: x.cumsum(axis=0), Y, id="sum of the rows before"),
        pytest.param(lambda x: x[::-1].cumsum(axis=0)[::-1], Y, id="sum of the rows after"),
        pytest.param(lambda x: x[::-1], Y, id="other order"),
        pytest.param(attended, Y, id="attention after a norm"),
        pytest.param(lambda x: x / (255 if x.max() > 1.5 else 1), Y, id="scaled by the largest"),
        pytest.param(lambda x: x - (x.min() < 0), Y, id="any that is negative"),
        pytest.param(lambda x: x / len(x), Y, id="number of rows"),
        pytest.param(lambda x: np.round(x / np.abs(x).max() * 127) / 127 * np.abs(x).max(), Y, id="quantised"),
        pytest.param(lambda x: np.full(len(x), (x > 0.5).sum()), INT_Y, id="count"),
        pytest.param(lambda x: x.sum(axis=1).argsort().argsort(), INT_Y, id="rank"),
        pytest.param(lambda x: x.sum(axis=1) >= x.sum(axis=1).max(), spec("y", ("batch",), 0, "BOOL"), id="bool"),
        pytest.param(
            lambda x: np.array([b"%d" % (x > 0).sum()] * len(x), object), spec("y", ("batch",), 0, "BYTES"), id="text"
        ),
        pytest.param(lambda x: np.hstack([x * 640, x[:, :1].mean(axis=0) * np.ones_like(x[:, :1])]),
                     spec("y", ("batch", 4), 0), id="a small column beside large ones"),
    ],
)  # fmt: skip
def test_detects_rows_that_mix(model, output):
    """The reason has output, values and row; a configured axis still batches."""
    verification = verification_of(model, output)
    assert verification.verdict.standing is Standing.CONTRADICTED
    assert 'output "y"' in verification.verdict.reason
    assert " alone and " in verification.verdict.reason
    assert "the row was x = [" in verification.verdict.reason
    assert not verification.signature.batchable
    assert verification_of(model, output, configured=True).signature.batchable


def test_detects_strings_padded_to_longest():
    """The padding reveals the length of other rows."""

    def words(x):
        split = [text.split() for text in x.tolist()]
        padded = np.full((len(split), max(1, *map(len, split))), b"", object)
        for row, found in zip(padded, split, strict=True):
            row[: len(found)] = found
        return padded

    verification = verification_of(
        words, spec("y", ("batch", "words"), 0, "BYTES"), x=spec("x", ("batch",), 0, "BYTES")
    )
    assert verification.verdict.standing is Standing.CONTRADICTED


def test_detects_shared_output_that_depends_on_rows():
    """Every client would receive facts about all rows."""
    candidate = Candidate(signature=signature([X], [Y, spec("count", (), None, "INT64")]))
    verification = verify_batch_axes(
        candidate, lambda inputs: {"y": inputs["x"], "count": np.int64((inputs["x"] > 0.5).sum())}
    )
    assert 'output "count"' in verification.verdict.reason


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_tolerates_rounding(dtype):
    """Kernels for other batch sizes sum in another order."""

    def model(x: np.ndarray) -> np.ndarray:
        epsilon = 2e-3 if np.dtype(dtype).itemsize == 2 else 2e-6
        return (np.asarray(x, np.float32) * (1 + epsilon * (len(x) % 3))).astype(dtype)

    names = {np.float16: "FP16", np.float32: "FP32", np.float64: "FP64", ml_dtypes.bfloat16: "BF16"}
    assert standing(model, spec("y", ("batch", 3), 0, names[dtype])) is Standing.PROVEN


def test_tolerates_rare_flip_of_argmax():
    """If the scores themselves agree."""

    def label(x):
        scores = x * (1 + 1e-7 * (len(x) % 5))
        return np.where(np.abs(scores[:, 0] - scores[:, 1]) < 1e-9, 1, scores.argmax(axis=1))

    assert standing(label, INT_Y) is Standing.PROVEN


def test_equal_nan_and_infinity_agree():
    """NaN is compared as equal to NaN."""
    assert standing(lambda x: x * np.float32(np.nan)) is Standing.PROVEN
    assert standing(lambda x: x + np.float32(np.inf)) is Standing.PROVEN


def test_finds_axis_of_output_without_shape():
    """From how the shape grows, or from the graph."""
    verification = verification_of(lambda x: np.moveaxis(x[:, None], 0, 1), spec("y", ()))
    assert verification.signature.outputs == (spec("y", (None, None, None), 1),)
    graph = GraphAnalysis(axes={"y": 0})
    wrong = verification_of(lambda x: x[:, None].repeat(2, 1), spec("y", (None, None, None), 1), graph=graph)
    assert (wrong.verdict.standing, wrong.signature.outputs[0].batch_axis) == (Standing.PROVEN, 0)


def test_finds_rank_of_unbatchable_output():
    """Clients see a shape instead of a scalar."""
    candidate = Candidate(
        signature=signature([spec("x", (1, 3))], [spec("y", ())]), why_not_batchable="no open dimension"
    )
    verification = verify_batch_axes(candidate, lambda inputs: {"y": inputs["x"]})
    assert verification.signature.outputs == (spec("y", (None, None)),)
    assert (verification.verdict.standing, verification.verdict.reason) == (Standing.CONTRADICTED, "no open dimension")


def test_unproven_if_model_never_runs():
    """There is no evidence for or against it."""

    def model(x):
        raise RuntimeError

    verification = verification_of(model)
    assert (verification.verdict.standing, verification.inputs) == (Standing.UNPROVEN, None)
    assert "inputs.NAME.example" in verification.verdict.reason
    assert not verification.signature.batchable
    assert verification_of(model, configured=True).signature.batchable


def test_unproven_if_not_deterministic():
    """Outputs cannot be compared."""
    random = np.random.default_rng(0)
    verification = verification_of(lambda x: x + random.normal(size=x.shape))
    assert verification.verdict.standing is Standing.UNPROVEN
    assert "not deterministic" in verification.verdict.reason


def test_unproven_if_too_few_rows_run():
    """Two rows are not enough for batches."""

    def model(x):
        if (np.abs(x) > 1e-2).any():
            raise RuntimeError
        return x

    assert standing(model) is Standing.UNPROVEN


@pytest.mark.parametrize("draws", [True, False])
def test_tries_values_of_shared_inputs(draws):
    """A model may mix rows for one value only."""

    def model(x, mode):
        return x - x.mean(axis=0) * (mode < 0 if draws else 0)

    shared = spec("mode", ())
    assert standing(model, more=(shared,)) is (Standing.CONTRADICTED if draws else Standing.PROVEN)


def test_tries_optional_inputs():
    """With and without them."""

    def model(x, bias=None):
        return x if bias is None else x - x.mean(axis=0)

    assert standing(model, more=(spec("bias", (3,), optional=True),)) is Standing.CONTRADICTED
    assert standing(lambda x, bias=0: x + bias, more=(spec("bias", (3,), optional=True),)) is Standing.PROVEN


def test_uses_examples_if_synthetic_rows_fail():
    """Further rows are derived from them."""

    def model(x):
        if not ((x >= 7) & (x < 8.1)).all():
            raise RuntimeError
        return x * 2

    rows = [{"x": np.full((1, 3), 7 + n / 5, np.float32)} for n in range(5)]
    assert standing(model) is Standing.UNPROVEN
    assert standing(model, hints=Hints(examples=rows)) is Standing.PROVEN


def test_reason_does_not_quote_examples():
    """They may be recorded requests, and every client can read the verdict."""
    rows = [{"x": np.full((1, 3), 123.25 + n, np.float32)} for n in range(5)]
    verdict = verification_of(lambda x: x - x.mean(axis=0), hints=Hints(examples=rows)).verdict
    assert verdict.standing is Standing.CONTRADICTED
    assert "made of the examples" in verdict.reason
    assert not any(quote in verdict.reason for quote in ("x = [", " alone and ", "123"))


def test_graph_that_mixes_overrules_runs():
    """For example a threshold that no synthetic row reaches."""
    graph = GraphAnalysis(mixes='output "y" depends on the other rows of a batch: ReduceMax "m"')
    hidden = verification_of(lambda x: x, graph=graph)
    assert (hidden.verdict.standing, hidden.verdict.reason) == (Standing.CONTRADICTED, graph.mixes)
    shown = verification_of(lambda x: x - x.max(axis=0), graph=graph)
    assert shown.verdict.reason.startswith(f"{graph.mixes}; for example, element")


def test_unproven_if_graph_is_doubtful():
    """Operators without a rule alone leave the decision to runs."""
    doubtful = GraphAnalysis(undecided="Loop is not understood", doubtful=True)
    assert standing(lambda x: x, graph=doubtful) is Standing.UNPROVEN
    assert standing(lambda x: x, graph=GraphAnalysis(undecided="nothing is known of Custom")) is Standing.PROVEN


def test_slow_model_gets_minimal_trial():
    """Three rows alone and the two smallest batches, however long they take."""
    clock, sizes = FakeClock(), []

    def run(inputs):
        sizes.append(len(inputs["x"]))
        clock.advance(10)
        return {"y": inputs["x"]}

    verify_batch_axes(Candidate(signature=signature([X], [Y])), run, clock=clock)
    assert sizes.count(1) <= 6
    assert [size for size in sizes if size > 1] == [3, 2, 3]


def test_inputs_run_without_batch_axes():
    """Other values are drawn for inputs that no longer count rows, and the model may not accept these."""

    def model(x, i):
        return x[i]

    verification = verification_of(model, more=(spec("i", ("batch",), 0, "INT64"),))
    assert verification.verdict.standing is not Standing.PROVEN
    assert verification.inputs is not None
    model(**verification.inputs.row(0))

"""Rules of the graph analysis, on graphs in ONNX's text form.

Each graph found to be row-wise also runs, and each row must have the same output in a batch as alone.
"""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from onnx import parser

from inferd.runtime.onnx_file import read_model_file
from inferd.runtime.row_analysis.analysis import GraphAnalysis, analyse
from tests import onnx_models
from tests.unit.runtime.row_graphs import (
    AS_WIDE,
    COUNT,
    MIXES,
    MIXES_RARELY,
    MORE_INPUTS,
    PADDED,
    RARE_FUNCTIONS,
    ROW_INDICES,
    ROW_WISE,
    TWICE,
)
from tests.unit.runtime.specs import signature, spec

_HEADER = '<ir_version: 9, opset_import: ["": {opset}, "com.microsoft": 1, "ai.onnx.ml": 3, "own": 1]>'


def graph(text: str, inputs: str = "float[batch,4] x", output: str = "float[batch,n] y", constants: str = "") -> str:
    return f"g ({inputs}) => ({output}) <{constants}> {{ {text} }}"


def model_of(text: str, opset: int = 20, functions: str = ""):
    return parser.parse_model(f"{_HEADER.format(opset=opset)}\n{text}\n{functions}")


def found(folder, model, axes=None, out_axis=0) -> GraphAnalysis:
    axes = {"x": 0} if axes is None else axes
    shapes = {
        value.name: tuple(d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim)
        for value in model.graph.input
    }
    inputs = [spec(name, shape, axes.get(name)) for name, shape in shapes.items()]
    outputs = [spec(value.name, ("a", "b", "c", "d")[: 1 + (out_axis or 0)], out_axis) for value in model.graph.output]
    path = onnx_models.save(model, folder / "model.onnx")
    return analyse(read_model_file(path), signature(inputs, outputs))


def assert_row_wise(model, shape=(4,), axis=0, out_axis=0):
    """Run rows alone and in a batch, and compare the outputs."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    rows = [np.expand_dims(random.normal(size=shape).astype(np.float32), axis) for _ in range(5)]
    alone = [session.run(None, {"x": row})[0] for row in rows]
    together = session.run(None, {"x": np.concatenate(rows, axis)})[0]
    np.testing.assert_allclose(np.concatenate(alone, out_axis), together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("text", ROW_WISE.values(), ids=ROW_WISE.keys())
def test_row_wise_graphs(text, tmp_path):
    """Each row depends on itself alone, and a run confirms it."""
    model = model_of(graph(text), functions=TWICE if "own." in text else "")
    assert found(tmp_path, model) == GraphAnalysis(axes={"y": 0})
    assert_row_wise(model)


@pytest.mark.parametrize(("text", "operator"), MIXES.values(), ids=MIXES.keys())
def test_graphs_that_mix_rows(text, operator, tmp_path):
    """The reason names the operator, even if no run would show it."""
    finding = found(tmp_path, model_of(graph(text)))
    assert 'output "y" depends on the other rows of a batch: ' in finding.mixes
    assert operator in finding.mixes


@pytest.mark.parametrize("text", MIXES_RARELY.values(), ids=MIXES_RARELY.keys())
def test_does_not_accept_graphs_that_mix_rarely(text, tmp_path):
    """They load, but are not taken to be row-wise."""
    inputs = ["float[batch,4] x", *(declared for name, declared in MORE_INPUTS.items() if f"({name})" in text)]
    model = model_of(graph(text, inputs=", ".join(inputs)), functions=RARE_FUNCTIONS if "own." in text else "")
    onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    finding = found(tmp_path, model)
    assert finding.mixes or finding.undecided


@pytest.mark.parametrize(("text", "row_wise"), PADDED.values(), ids=PADDED.keys())
def test_elements_of_padded_strings(text, row_wise, tmp_path):
    """Only elements that every row has are its own."""
    finding = found(tmp_path, model_of(graph(text, inputs="string[batch] x", output="string[a,b] y")))
    assert (not finding.mixes and not finding.undecided) is row_wise


def test_loose_dimensions_may_differ(tmp_path):
    """Two of the same name need not be equal."""
    text = f"s = Shape <start = 1, end = 2> (open) p = Identity (x) {ROW_INDICES} {AS_WIDE}"
    model = model_of(graph(text, inputs="float[batch,m] x, float[p,m] open"))
    path = onnx_models.save(model, tmp_path / "model.onnx")
    candidate = signature([spec("x", ("batch", "m"), 0), spec("open", ("p", "m"))], [spec("y", ("a", "b"), 0)])
    assert not analyse(read_model_file(path), candidate).undecided
    assert analyse(read_model_file(path), replace(candidate, loose_dimensions=frozenset({"m"}))).undecided


def test_doubts_output_that_depends_on_number_of_rows(tmp_path):
    """It may change only in batches larger than any trial."""
    text = f"{COUNT} c = Constant <value_ints = [1000]> () y = Greater (n, c)"
    assert found(tmp_path, model_of(graph(text, output="bool[n] y")), out_axis=None).doubtful


def test_unknown_operator_with_subgraph_is_undecided(tmp_path):
    """The subgraph may read rows that are not inputs of the operator."""
    text = """c = Constant <value_float = 1.0> ()
        y = own.Mystery <body = b () => (float[a, b] p) { w = Constant <value_int = 0> () p = CumSum (x, w) }> (c)"""
    model = model_of(graph(text, output="float[n] y"))
    assert "this operator has no rule" in found(tmp_path, model, out_axis=None).undecided


def test_output_with_number_of_rows_mixes(tmp_path):
    """Clients would see how many others there are."""
    model = model_of(graph("y = Shape <start = 0, end = 1> (x)", output="int64[n] y"))
    assert "it counts them" in found(tmp_path, model, out_axis=None).mixes


@pytest.mark.parametrize(
    ("opset", "axis", "mixes"), [(20, 0, True), (20, 1, False), (11, 0, True), (11, 1, False), (12, -1, False)]
)
def test_softmax_before_and_after_opset_13(opset, axis, mixes, tmp_path):
    """Before, it covered all axes from the given one on."""
    model = model_of(graph(f"y = Softmax <axis = {axis}> (x)"), opset=opset)
    assert bool(found(tmp_path, model).mixes) is mixes


@pytest.mark.parametrize(("axis", "mixes"), [(0, True), (1, False)])
def test_recurrent_networks_iterate_over_first_axis(axis, mixes, tmp_path):
    """The second axis counts rows."""
    weights = """w = ConstantOfShape (s) r = ConstantOfShape (t)"""
    text = f"""s = Constant <value_ints = [1, 5, 4]> () t = Constant <value_ints = [1, 5, 5]> () {weights}
        y, h = RNN <hidden_size = 5> (x, w, r)"""
    model = model_of(graph(text, inputs="float[time,batch,4] x", output="float[a,b,c,d] y"))
    finding = found(tmp_path, model, axes={"x": axis}, out_axis=2)
    assert (bool(finding.mixes), finding.axes) == (mixes, {} if mixes else {"y": 2})


def test_follows_rows_on_other_axes(tmp_path):
    """Through the whole graph."""
    text = "a = Constant <value_ints = [0]> () y = ReduceSum <keepdims = 0> (x, a)"
    model = model_of(graph(text, inputs="float[time,batch,2] x", output="float[batch,2] y"))
    assert found(tmp_path, model, axes={"x": 1}) == GraphAnalysis(axes={"y": 0})


def test_padded_strings(tmp_path):
    """Parts are padded to the longest string; the first part is not."""
    inputs = "string[batch] x"
    whole = model_of(graph("y, n = StringSplit (x)", inputs=inputs, output="string[a,b] y"))
    assert "padded to the largest row" in found(tmp_path, whole).mixes
    first = "p, n = StringSplit (x) i = Constant <value_ints = [0]> () y = Gather <axis = 1> (p, i)"
    assert not found(tmp_path, model_of(graph(first, inputs=inputs, output="string[a,b] y"))).mixes
    last = first.replace("[0]", "[-1]")
    assert "counts from the end" in found(tmp_path, model_of(graph(last, inputs=inputs, output="string[a,b] y"))).mixes


def test_operator_without_rule_is_undecided(tmp_path):
    """And doubtful if an operator that can mix rows uses its output."""
    unknown = found(tmp_path, model_of(graph("a = own.Mystery (x) y = Relu (a)")))
    assert (unknown.mixes, unknown.doubtful) == ("", False)
    assert "this operator has no rule" in unknown.undecided
    after = found(tmp_path, model_of(graph("a = own.Mystery (x) y = Softmax (a)")))
    assert after.doubtful


@pytest.mark.parametrize(
    "text",
    [
        "z = RandomNormalLike <scale = 1e-12> (x) y = Add (x, z)",
        "z = RandomUniform <shape = [4], high = 1e-12> () y = Add (x, z)",
        "z = Bernoulli (x) y = Identity (z)",
        "r = Constant <value_float = 1e-6> () t = Cast <to = 9> (r) y = Dropout (x, r, t)",
        "r = Constant <value_float = 1e-6> () t = Cast <to = 9> (r) y = com.microsoft.BiasDropout (x, x, x, r, t)",
        "y = own.Noisy (x)",
    ],
)
def test_drawn_numbers_are_doubtful(text, tmp_path):
    """Trials cannot clear them: what is drawn rarely, or is small, shows in none of them."""
    noisy = '<domain: "own", opset_import: ["": 20]> Noisy (a) => (b) { b = RandomNormalLike (a) }'
    finding = found(tmp_path, model_of(graph(text), functions=noisy))
    assert (finding.mixes, finding.doubtful) == ("", True)


@pytest.mark.parametrize(("opset", "mixes"), [(9, True), (13, True), (14, False)])
def test_statistics_of_training_before_opset_14(opset, mixes, tmp_path):
    """There the number of outputs says whether the statistics are those of the rows."""
    c = "c = Constant <value = float[4] {1, 1, 1, 1}> ()"
    node = "y, m, v, k, l = BatchNormalization (x, c, c, c, c)" if mixes else "y = BatchNormalization (x, c, c, c, c)"
    assert bool(found(tmp_path, model_of(graph(f"{c} {node}"), opset=opset)).mixes) is mixes


def test_branch_by_shared_input_keeps_rows_apart(tmp_path):
    """It is the same for all rows of a batch."""
    text = """y = If (flag) <then_branch = t () => (float[a, b] p) { p = Neg (x) },
        else_branch = e () => (float[a, b] q) { q = Identity (x) }>"""
    model = model_of(graph(text, inputs="float[batch,4] x, bool flag"))
    assert found(tmp_path, model) == GraphAnalysis(axes={"y": 0})


@pytest.mark.parametrize("name", ["two", "one"])
def test_gather_from_constant_table(name, tmp_path):
    """Each row selects for itself."""
    text = "i = Cast <to = 7> (x) y = Gather (table, i)"
    model = model_of(graph(text, output="float[a,b] y", constants="float[3] table = {1.0, 2.0, 3.0}"))
    assert found(tmp_path, model).axes == {"y": 0}

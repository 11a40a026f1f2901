"""Which models have run times that depend on the number of rows alone."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from inferd.runtime import bounded_runs
from inferd.runtime.bounded_runs import has_data_independent_work, has_fixed_size_rows
from inferd.runtime.onnx_file import read_model_file
from tests import onnx_models, onnx_traps
from tests.load import busy_model
from tests.unit.runtime.specs import signature, spec

_ONE = numpy_helper.from_array(np.array([1], np.int64), "one")
_FEW = numpy_helper.from_array(np.array([2, 3], np.int64), "few")


def _is_data_independent(model, tmp_path):
    return has_data_independent_work(read_model_file(onnx_models.save(model, tmp_path / "model.onnx")))


def _model(*nodes, functions=()):
    """Build a model with inputs x, FP32 [batch,3], and n, INT64 [2]."""
    made = [
        helper.make_node(operator, list(inputs), [output], domain=domain, **attributes)
        for operator, inputs, output, domain, attributes in nodes
    ]
    graph = helper.make_graph(
        made,
        "test",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3]),
            helper.make_tensor_value_info("n", TensorProto.INT64, [2]),
        ],
        [helper.make_tensor_value_info(made[-1].output[0], TensorProto.FLOAT, None)],
        [_ONE, _FEW],
    )
    opsets = [helper.make_opsetid(domain, 18) for domain in ("", "com.microsoft", "own")]
    return helper.make_model(graph, opset_imports=opsets, ir_version=onnx_models.IR_VERSION, functions=functions)


def _node(operator, *inputs, output="y", domain="", **attributes):
    return operator, inputs, output, domain, attributes


@pytest.mark.parametrize(
    "build", [onnx_models.linear, onnx_models.two_inputs, onnx_models.slow, onnx_models.brightness, onnx_models.centred]
)
def test_ordinary_networks_are_data_independent(build, tmp_path):
    """They do the same work for any values."""
    assert _is_data_independent(build(), tmp_path)


@pytest.mark.parametrize("build", [busy_model, onnx_models.one_long_operator, onnx_traps.custom_operator])
def test_loops_and_unknown_operators_are_not(build, tmp_path):
    """Their duration is unbounded."""
    assert not _is_data_independent(build(), tmp_path)


@pytest.mark.parametrize(
    "node",
    [
        *(_node(operator, "x", "n") for operator in ("Expand", "Tile", "Reshape", "Upsample", "Slice")),
        _node("ConstantOfShape", "n"),
        _node("Range", "one", "n", "one"),
        _node("Pad", "x", "n"),
        _node("Resize", "x", "", "", "n"),
        _node("OneHot", "few", "n", "few"),
        _node("TopK", "x", "n"),
        _node("NonZero", "x"),
        _node("Unique", "x"),
        _node("Compress", "x", "n"),
        _node("RoiAlign", "x", "x", "n"),
        _node("LSTM", "x", "x", "x", "", "n"),
    ],
    ids=lambda node: node[0],
)
def test_sizes_from_requests_are_not(node, tmp_path):
    """A small message could ask for any amount of work or output."""
    assert not _is_data_independent(_model(node), tmp_path)


@pytest.mark.parametrize(
    "node",
    [
        *(_node(operator, "x", "few") for operator in ("Expand", "Tile", "Reshape")),
        _node("ConstantOfShape", "few"),
        _node("Resize", "x", "", "", "few"),
        _node("ReduceSum", "x", "one"),
        _node("LSTM", "x", "x", "x", "", "", "x"),
    ],
    ids=lambda node: node[0],
)
def test_constant_sizes_are_data_independent(node, tmp_path):
    """They are the same for every request."""
    assert _is_data_independent(_model(node), tmp_path)


def test_sizes_computed_from_shapes_are_data_independent(tmp_path):
    """Sizes computed from values are not."""
    shape = _node("Shape", "x", output="shape")
    assert _is_data_independent(
        _model(shape, _node("Mul", "shape", "few", output="size"), _node("ConstantOfShape", "size")), tmp_path
    )
    mixed = _node("Mul", "shape", "n", output="size")
    assert not _is_data_independent(_model(shape, mixed, _node("ConstantOfShape", "size")), tmp_path)


def test_overridable_initializer_is_no_constant(tmp_path):
    """An initializer that is also a graph input is a default."""
    model = _model(_node("Expand", "x", "few"))
    model.graph.input.append(helper.make_tensor_value_info("few", TensorProto.INT64, [2]))
    assert not _is_data_independent(model, tmp_path)


def test_functions_are_not_data_independent(tmp_path):
    """Not even under the name of a standard operator."""
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function("own", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 18)])
    assert not _is_data_independent(_model(_node("Twice", "x", domain="own"), functions=[function]), tmp_path)
    assert not _is_data_independent(_model(_node("Relu", "x"), functions=[function]), tmp_path)
    assert not _is_data_independent(_model(_node("Gelu", "x", domain="com.microsoft")), tmp_path)


@pytest.mark.parametrize(
    ("spec_of_x", "fixed"),
    [
        (spec("x", ("batch", 3), 0), True),
        (spec("x", (3, "batch"), 1), True),
        (spec("x", (1, 3), None), True),
        (spec("x", ("batch", "length"), 0), False),
        (spec("x", ("batch", None), 0), False),
        (spec("x", ("batch", 3), None), False),
        (spec("x", ("batch", 3), 0, "BYTES"), False),
    ],
)
def test_rows_have_fixed_size_without_open_dimensions(spec_of_x, fixed):
    """Apart from the batch axis, and without strings."""
    assert has_fixed_size_rows(signature([spec_of_x])) is fixed


def test_shared_input_must_have_fixed_size_too():
    """Its size is the client's choice as well."""
    inputs = [spec("x", ("batch", 3), 0), spec("table", ("length",), None)]
    assert not has_fixed_size_rows(signature(inputs))


def test_listed_operators_exist():
    """Guards against misspelt names."""
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    assert {name for names in bounded_runs._BY_DOMAIN.values() for name in names} <= known

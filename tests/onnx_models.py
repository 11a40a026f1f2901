"""Small ONNX models, one for each property that inferd must handle. Each function builds a new one.

`save` writes a model to a file; weights are constants, so that expected answers can be computed by hand.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from inferd.dtypes import DataType

Shape = Sequence[int | str | None]

OPSET = 20
#: Supported by every release of ONNX Runtime that inferd supports.
IR_VERSION = 9


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Write ``model`` to ``path``, and create its directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(model, path)
    return path


def linear(rows: int | str | None = "batch", factor: float = 2.0) -> onnx.ModelProto:
    """Build ``y = factor * x + 1`` on FP32 [rows,3]."""
    return _model(
        [_node("Mul", ["x", "two"], ["doubled"]), _node("Add", ["doubled", "one"], ["y"])],
        [_float("x", [rows, 3])],
        [_float("y", [rows, 3])],
        [_constant("two", np.float32(factor)), _constant("one", np.float32(1))],
    )


def two_inputs(rows_a: int | str | None = "batch", rows_b: int | str | None = "batch") -> onnx.ModelProto:
    """Build ``total = a + b`` and ``product = a * b``; a FP32 [batch,length], b INT64 of the same shape."""
    return _model(
        [
            _node("Cast", ["b"], ["as_float"], to=TensorProto.FLOAT),
            _node("Add", ["a", "as_float"], ["total"]),
            _node("Mul", ["a", "as_float"], ["product"]),
        ],
        [_float("a", [rows_a, "length"]), _value("b", TensorProto.INT64, [rows_b, "length"])],
        [_float("total", [rows_a, "length"]), _float("product", [rows_a, "length"])],
    )


def batch_axis_one() -> onnx.ModelProto:
    """Build ``y = sum of x over time``: x FP32 [time,batch,2], y FP32 [batch,2]."""
    return _model(
        [_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)],
        [_float("x", ["time", "batch", 2])],
        [_float("y", ["batch", 2])],
        [_constant("axes", np.array([0], np.int64))],
    )


def shared_scalar() -> onnx.ModelProto:
    """Build ``y = x * factor`` on FP32 [batch,3], where factor is a scalar that a batch shares."""
    return _model(
        [_node("Mul", ["x", "factor"], ["y"])],
        [_float("x", ["batch", 3]), _float("factor", [])],
        [_float("y", ["batch", 3])],
    )


def optional_scale(element: int = TensorProto.FLOAT, ir_version: int = IR_VERSION) -> onnx.ModelProto:
    """Build ``y = x * scale`` on FP32 [batch,3]; scale, an optional scalar, has the default 2.

    Before IR version 4, ``scale`` is a weight like any other. ``element`` is its type.
    """
    scale = helper.make_tensor("scale", element, [], [2])
    model = _model(
        [_node("Cast", ["scale"], ["as_float"], to=TensorProto.FLOAT), _node("Mul", ["x", "as_float"], ["y"])],
        [_float("x", ["batch", 3]), _value("scale", element, [])],
        [_float("y", ["batch", 3])],
        [scale],
    )
    model.ir_version = ir_version
    return model


def no_inputs() -> onnx.ModelProto:
    """Build ``y`` FP32 [2], always 1 and 2."""
    return _model(
        [_node("Identity", ["values"], ["y"])], [], [_float("y", [2])], [_constant("values", np.float32([1, 2]))]
    )


def constant_output() -> onnx.ModelProto:
    """Build ``y = x`` on FP32 [batch,3] with a second output, ``classes`` INT64 [3], that is always 10, 20, 30."""
    return _model(
        [_node("Identity", ["x"], ["y"]), _node("Identity", ["labels"], ["classes"])],
        [_float("x", ["batch", 3])],
        [_float("y", ["batch", 3]), _value("classes", TensorProto.INT64, [3])],
        [_constant("labels", np.array([10, 20, 30], np.int64))],
    )


def strings() -> onnx.ModelProto:
    """Build ``loud = text + "!"`` on strings [batch,2]."""
    return _model(
        [_node("StringConcat", ["text", "mark"], ["loud"])],
        [_value("text", TensorProto.STRING, ["batch", 2])],
        [_value("loud", TensorProto.STRING, ["batch", 2])],
        [_constant("mark", np.array(["!"], object))],
    )


def identity(datatype: DataType, shape: Shape = ("batch", 2)) -> onnx.ModelProto:
    """Build ``y = x`` for any element type."""
    element = datatype.onnx_element_type
    return _model([_node("Identity", ["x"], ["y"])], [_value("x", element, shape)], [_value("y", element, shape)])


def cast_sum(datatype: DataType) -> onnx.ModelProto:
    """Build ``y = x + x`` on a float type of any width, [batch,2], computed in FP32."""
    element = datatype.onnx_element_type
    return _model(
        [
            _node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
            _node("Add", ["wide", "wide"], ["sum"]),
            _node("Cast", ["sum"], ["y"], to=element),
        ],
        [_value("x", element, ["batch", 2])],
        [_value("y", element, ["batch", 2])],
    )


def lookup(size: int = 4) -> onnx.ModelProto:
    """Build ``y = 10 * index`` for INT64 [batch] by a table: the run fails if an index is ``size`` or more."""
    return _model(
        [_node("Gather", ["table", "index"], ["y"])],
        [_value("index", TensorProto.INT64, ["batch"])],
        [_float("y", ["batch"])],
        [_constant("table", np.arange(size, dtype=np.float32) * 10)],
    )


def needs_a_rate() -> onnx.ModelProto:
    """Build ``y = x * gain`` on FP32 [batch,3]; gain is 1 for ``rate`` INT64 [] 8000, 2 for 16000; 0 and 1 fail."""
    return _model(
        [
            _node("Div", ["rate", "step"], ["steps"]),
            _node("Sub", ["steps", "four"], ["index"]),
            _node("Gather", ["gains", "index"], ["gain"]),
            _node("Mul", ["x", "gain"], ["y"]),
        ],
        [_float("x", ["batch", 3]), _value("rate", TensorProto.INT64, [])],
        [_float("y", ["batch", 3])],
        [
            _constant("step", np.int64(8000)),
            _constant("four", np.int64(4)),
            _constant("gains", np.array([1, 2, 3], np.float32)),
        ],
    )


def nested_lookup() -> onnx.ModelProto:
    """Build ``y = 10 * index`` as `lookup`, by a node "inner" in both branches of the node "outer"."""
    inner = _node("Gather", ["table", "index"], ["found"], name="inner")
    branch = helper.make_graph([inner], "branch", [], [_float("found", ["batch"])])
    return _model(
        [_node("If", ["which"], ["y"], name="outer", then_branch=branch, else_branch=branch)],
        [_value("index", TensorProto.INT64, ["batch"]), _value("which", TensorProto.BOOL, [])],
        [_float("y", ["batch"])],
        [_constant("table", np.arange(4, dtype=np.float32) * 10)],
    )


def zeros() -> onnx.ModelProto:
    """Build ``y``, as many zeros as ``size`` INT64 [1] says: the run fails if memory is exhausted."""
    return _model(
        [_node("ConstantOfShape", ["size"], ["y"])],
        [_value("size", TensorProto.INT64, [1])],
        [_float("y", [None])],
    )


def wide(mib: int = 16) -> onnx.ModelProto:
    """Build ``y = sqrt(x)`` on FP32 [batch,1] so that a run needs about twice ``mib`` MiB of memory per row."""
    constants = [_constant("copies", np.array([1, mib * 2**18])), _constant("axes", np.array([1]))]
    tile = _node("Tile", ["x", "copies"], ["tiled"])
    nodes = [tile, _node("Sqrt", ["tiled"], ["roots"]), _node("ReduceMax", ["roots", "axes"], ["y"], keepdims=1)]
    return _model(nodes, [_float("x", ["batch", 1])], [_float("y", ["batch", 1])], constants)


def slow(steps: int = 200, width: int = 256) -> onnx.ModelProto:
    """Build ``y = x`` on FP32 [batch,width] in ``steps`` multiplications by the identity matrix.

    A run of one row takes about ``steps`` times 10 microseconds at the default width.
    """
    names = ["x", *(f"step_{step}" for step in range(1, steps)), "y"]
    return _model(
        [_node("MatMul", [names[step], "identity"], [names[step + 1]]) for step in range(steps)],
        [_float("x", ["batch", width])],
        [_float("y", ["batch", width])],
        [_constant("identity", np.eye(width, dtype=np.float32))],
    )


def one_long_operator() -> onnx.ModelProto:
    """Build ``y``, INT64 [2], of FP32 [1,length] in one operator that takes 0.5 ns times the squared length.

    It selects among boxes without an area, as many as ``x`` has elements, and compares each with all before.
    """
    return _model(
        [
            _node("Unsqueeze", ["x", "one"], ["scores"]),
            _node("Shape", ["x"], ["length"], start=1),
            _node("Concat", ["one", "length", "four"], ["shape"], axis=0),
            _node("ConstantOfShape", ["shape"], ["boxes"]),
            _node("NonMaxSuppression", ["boxes", "scores", "most"], ["chosen"]),
            _node("Shape", ["chosen"], ["y"]),
        ],
        [_float("x", [1, "length"])],
        [_value("y", TensorProto.INT64, [2])],
        [_constant(name, np.array([value], np.int64)) for name, value in (("one", 1), ("four", 4), ("most", 2**40))],
    )


def needs_size(least: int = 3) -> onnx.ModelProto:
    """Build ``y = moving average of x`` on FP32 [batch,1,length]; the run fails if length is less than ``least``."""
    return _model(
        [_node("Conv", ["x", "kernel"], ["y"])],
        [_float("x", ["batch", 1, "length"])],
        [_float("y", ["batch", 1, None])],
        [_constant("kernel", np.full((1, 1, least), 1 / least, np.float32))],
    )


def rows_do_not_follow() -> onnx.ModelProto:
    """Declare y FP32 [batch,3] but always give one row, the sum of all rows of x."""
    return _model(
        [_node("ReduceSum", ["x", "axes"], ["y"], keepdims=1)],
        [_float("x", ["batch", 3])],
        # ONNX Runtime notices at run time only: its shape inference allows the dynamic shape [rows,3].
        [_float("y", ["rows", 3])],
        [_constant("axes", np.array([0], np.int64))],
    )


def centred() -> onnx.ModelProto:
    """Build ``y = x - mean of x over the rows`` on FP32 [batch,3]: a row's answer depends on the others."""
    return _model(
        [_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=1), _node("Sub", ["x", "mean"], ["y"])],
        [_float("x", ["batch", 3])],
        [_float("y", ["batch", 3])],
        [_constant("axes", np.array([0], np.int64))],
    )


def brightness() -> onnx.ModelProto:
    """Build ``brightness = mean of the pixels`` of FP32 [batch,8,8], over 255 if any pixel of the batch exceeds 1.5."""
    return _model(
        [
            _node("ReduceMax", ["pixels"], ["largest"], keepdims=0),
            _node("Greater", ["largest", "limit"], ["is_bytes"]),
            _node("Where", ["is_bytes", "by_255", "one"], ["scale"]),
            _node("Mul", ["pixels", "scale"], ["scaled"]),
            _node("ReduceMean", ["scaled", "axes"], ["brightness"], keepdims=0),
        ],
        [_float("pixels", ["batch", 8, 8])],
        [_float("brightness", ["batch"])],
        [
            _constant("limit", np.float32(1.5)),
            _constant("by_255", np.float32(1 / 255)),
            _constant("one", np.float32(1)),
            _constant("axes", np.array([1, 2], np.int64)),
        ],
    )


def split_words() -> onnx.ModelProto:
    """Split ``text`` BYTES [batch] into ``words``, padded to the longest of the batch, and ``count`` them."""
    return _model(
        [_node("StringSplit", ["text"], ["words", "count"])],
        [_value("text", TensorProto.STRING, ["batch"])],
        [_value("words", TensorProto.STRING, ["batch", None]), _value("count", TensorProto.INT64, ["batch"])],
    )


def text_and_bf16() -> onnx.ModelProto:
    """Pass a string and a BF16 tensor through."""
    return _model(
        [_node("Identity", ["text"], ["same_text"]), _node("Identity", ["x"], ["y"])],
        [_value("text", TensorProto.STRING, ["batch"]), _value("x", TensorProto.BFLOAT16, ["batch"])],
        [_value("same_text", TensorProto.STRING, ["batch"]), _value("y", TensorProto.BFLOAT16, ["batch"])],
    )


def unknown_output_rank() -> onnx.ModelProto:
    """Build ``y = reshape(x, shape)`` where the rank of y depends on the graph's input ``shape``."""
    return _model(
        [_node("Reshape", ["x", "shape"], ["y"])],
        [_float("x", ["batch", 4]), _value("shape", TensorProto.INT64, ["rank"])],
        [_value("y", TensorProto.FLOAT, None)],
    )


def sequence_of_maps() -> onnx.ModelProto:
    """Return ``probabilities`` as a sequence of maps from label to FP32, the default of scikit-learn's converter."""
    node = helper.make_node("ZipMap", ["scores"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2])
    maps = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    output = helper.make_value_info("probabilities", helper.make_sequence_type_proto(maps))
    return _model([node], [_float("scores", ["batch", 3])], [output])


def label_and_maps() -> onnx.ModelProto:
    """Return ``label`` INT64 [batch], the index of the largest of ``scores``, and the maps of `sequence_of_maps`."""
    model = sequence_of_maps()
    model.graph.node.append(_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0))
    model.graph.output.append(_value("label", TensorProto.INT64, ["batch"]))
    return model


def sequence_input() -> onnx.ModelProto:
    """Take ``parts``, a sequence of FP32 tensors, and return them concatenated."""
    parts = helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, None)
    node = _node("ConcatFromSequence", ["parts"], ["y"], axis=0)
    return _model([node], [parts], [_value("y", TensorProto.FLOAT, [None])])


def optional_output() -> onnx.ModelProto:
    """Return ``y`` as an optional tensor."""
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, ["batch", 3])
    output = helper.make_value_info("y", helper.make_optional_type_proto(tensor))
    return _model([_node("Optional", ["x"], ["y"])], [_float("x", ["batch", 3])], [output])


def element_type(number: int) -> onnx.ModelProto:
    """Build ``y = x`` on FP32, with an input ``other`` of the ONNX element type ``number`` that is passed through."""
    return _model(
        [_node("Identity", ["x"], ["y"]), _node("Identity", ["other"], ["same"])],
        [_float("x", ["batch", 3]), _value("other", number, ["batch"])],
        [_float("y", ["batch", 3]), _value("same", number, ["batch"])],
    )


def numbered(number: int, width: int = 64) -> onnx.ModelProto:
    """Build ``y = x + number`` on FP32 [batch,width], and ``number`` FP32 [1]; y has weights of its own."""
    return _model(
        [_node("Add", ["x", "weights"], ["y"]), _node("Identity", ["copy"], ["number"])],
        [_float("x", ["batch", width])],
        [_float("y", ["batch", width]), _float("number", [1])],
        [_constant("weights", np.full(width, number, np.float32)), _constant("copy", np.float32([number]))],
    )


def save_with_external_data(path: Path, width: int = 64) -> Path:
    """Write ``y = x * weights`` with weights 0, 1, 2 … in an external file beside ``path``; x FP32 [batch,width]."""
    model = _model(
        [_node("Mul", ["x", "weights"], ["y"])],
        [_float("x", ["batch", width])],
        [_float("y", ["batch", width])],
        [_constant("weights", np.arange(width, dtype=np.float32))],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(
        model,
        path,
        save_as_external_data=True,
        location=f"{path.stem}.weights",
        size_threshold=0,
        convert_attribute=False,
    )
    return path


def _node(operator: str, inputs: list[str], outputs: list[str], **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, outputs, **attributes)


def _float(name: str, shape: Shape) -> onnx.ValueInfoProto:
    return _value(name, TensorProto.FLOAT, shape)


def _value(name: str, element: int, shape: Shape | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element, shape)


def _constant(name: str, value: np.ndarray | np.generic) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "test", inputs, outputs, list(constants))
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="inferd.tests")

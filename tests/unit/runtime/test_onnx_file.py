"""Reading of a model file without loading its weights."""

import mmap
import random
from contextlib import suppress

import numpy as np
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from inferd.runtime import onnx_file
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.onnx_file import Graph, Tensor, read_model_file
from tests import onnx_models


def read(model, folder):
    return read_model_file(onnx_models.save(model, folder / "model.onnx"))


def test_reads_header(tmp_path):
    """Versions and producer."""
    file = read(onnx_models.slow(steps=1), tmp_path)
    assert (file.ir_version, file.producer_name, file.producer_version) == (
        onnx_models.IR_VERSION, "inferd.tests", "",
    )  # fmt: skip
    assert file.opsets == {"ai.onnx": onnx_models.OPSET, "ai.onnx.ml": 3}


def test_reads_operators_and_constants(tmp_path):
    """In order, with the elements of small integer constants only."""
    graph = read(onnx_models.batch_axis_one(), tmp_path).graph
    (node,) = graph.nodes
    assert (node.operator, node.domain, node.inputs, node.outputs) == ("ReduceSum", "", ("x", "axes"), ("y",))
    assert node.attributes == {"keepdims": 0}
    assert graph.constants == {"axes": Tensor((1,), (0,))}
    assert (graph.inputs, graph.outputs) == (("x",), ("y",))
    weights = read(onnx_models.slow(steps=1), tmp_path).graph.constants["identity"]
    assert weights == Tensor((256, 256), None)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.bool_])
def test_reads_integers_from_any_field(dtype, tmp_path):
    """Raw bytes, or a typed list."""
    values = np.array([1, 0, 1]) if dtype is np.bool_ else np.array([-1, 0, 2**30])
    raw = numpy_helper.from_array(values.astype(dtype), "raw")
    listed = helper.make_tensor("listed", raw.data_type, [3], values.astype(dtype).tolist())
    model = onnx_models.linear()
    model.graph.initializer.extend([raw, listed])
    constants = read(model, tmp_path).graph.constants
    expected = tuple(int(value) for value in values)
    assert constants["raw"].integers == constants["listed"].integers == expected


def test_reads_attributes_of_every_kind(tmp_path):
    """Numbers, lists, strings, tensors and graphs; floats without their value."""
    body = helper.make_graph([helper.make_node("Identity", ["x"], ["inner"])], "body", [], [])
    node = helper.make_node(
        "Anything", ["x"], ["z"], number=-3, numbers=[1, -2], text="é", fraction=0.5, body=body,
        value=numpy_helper.from_array(np.array([7], np.int64)), nothing=helper.make_tensor("e", 1, [0], []),
        custom=b"\xff\x00", domain="own",
    )  # fmt: skip
    model = onnx_models.linear()
    model.graph.node.append(node)
    attributes = read(model, tmp_path).graph.nodes[-1].attributes
    assert {name: attributes[name] for name in ("number", "numbers", "text", "fraction")} == {
        "number": -3, "numbers": (1, -2), "text": "é", "fraction": None,
    }  # fmt: skip
    assert attributes["value"] == Tensor((1,), (7,))
    assert isinstance(attributes["body"], Graph)
    assert attributes["body"].nodes[0].outputs == ("inner",)


def test_reads_functions(tmp_path):
    """Operators defined in the file, by domain and name."""
    function = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 20)]
    )
    model = onnx_models.linear()
    model.functions.append(function)
    found = read(model, tmp_path).functions["own", "Twice"]
    assert (found.inputs, found.outputs, found.nodes[0].operator) == (("a",), ("b",), "Add")


def test_reads_referenced_attributes_of_functions(tmp_path):
    """Present, with an unknown value."""
    node = helper.make_node("ReduceSum", ["a"], ["b"])
    node.attribute.append(AttributeProto(name="axes", type=AttributeProto.INTS, ref_attr_name="along"))
    model = onnx_models.linear()
    model.functions.append(
        helper.make_function("own", "Total", ["a"], ["b"], [node], [helper.make_opsetid("", 20)], ["along"])
    )
    assert read(model, tmp_path).functions["own", "Total"].nodes[0].attributes == {"axes": None}


def test_drops_functions_of_equal_name(tmp_path):
    """It is ambiguous which one is called."""
    model = onnx_models.linear()
    for operator in ("Neg", "Abs"):
        body = [helper.make_node(operator, ["a"], ["b"])]
        model.functions.append(helper.make_function("own", "F", ["a"], ["b"], body, [helper.make_opsetid("", 20)]))
    assert read(model, tmp_path).functions["own", "F"] == Graph()


def test_reads_facts_of_strings_and_floats(tmp_path):
    """Whether all strings are empty, and whether the first float is 1."""
    model = onnx_models.linear()
    model.graph.initializer.extend(
        [
            helper.make_tensor("blank", TensorProto.STRING, [2], [b"", b""]),
            helper.make_tensor("words", TensorProto.STRING, [2], [b"", b"a"]),
            helper.make_tensor("listed", TensorProto.FLOAT, [2], [1.0, 2.0]),
            numpy_helper.from_array(np.array([1, 2], np.float32), "raw"),
            numpy_helper.from_array(np.array([2, 1], np.float32), "others"),
        ]
    )
    constants = read(model, tmp_path).graph.constants
    assert (constants["blank"].blank, constants["words"].blank) == (True, False)
    assert [constants[name].one_first for name in ("listed", "raw", "others")] == [True, True, False]


def test_names_external_weight_files(tmp_path):
    """The verdict depends on them too."""
    path = onnx_models.save_with_external_data(tmp_path / "model.onnx")
    assert read_model_file(path).external_files == {"model.weights"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        onnx_models.slow(steps=1).SerializeToString()[:-1000],
        b"\x08" + b"\xff" * 11,
        b"\x12\x01\xff",
        b"\x3a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    ],
    ids=["empty", "text", "truncated", "endless number", "name that is not text", "longer than the file"],
)
def test_rejects_other_files(content, tmp_path):
    """Naming the file."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match=r"model\.onnx is not an ONNX file"):
        read_model_file(path)


def test_rejects_deeply_nested_graphs(tmp_path):
    """With a one-line error."""
    graph = b""
    for _ in range(1000):
        node = _field(4, b"If") + _field(5, _field(1, b"then_branch") + _field(6, graph))
        graph = _field(1, node)
    path = tmp_path / "model.onnx"
    path.write_bytes(_field(7, graph))
    with pytest.raises(ModelLoadError, match="nested too deeply"):
        read_model_file(path)


def _field(number, content):
    length = bytearray()
    value = len(content)
    while value >= 0x80:
        length.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([number << 3 | 2, *length, value]) + content


@pytest.mark.parametrize("seed", range(20))
def test_damaged_file_gives_one_line_error(seed, tmp_path):
    """For any changed bytes, it is read or rejected."""
    content = bytearray(onnx_models.two_inputs().SerializeToString())
    chance = random.Random(seed)
    path = tmp_path / "model.onnx"
    for _ in range(50):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged[: chance.choice([len(damaged), chance.randrange(1, len(damaged))])])
        with suppress(ModelLoadError):
            read_model_file(path)


@pytest.mark.parametrize("most_bytes", [1, 2**20])
def test_reads_mapped_and_small_files_alike(most_bytes, tmp_path, monkeypatch):
    """A small file is not mapped, because truncating it meanwhile would end the process."""
    maps = []
    monkeypatch.setattr(onnx_file, "_MOST_BYTES_READ", most_bytes)
    map_file = mmap.mmap
    monkeypatch.setattr(onnx_file.mmap, "mmap", lambda *args, **options: maps.append(1) or map_file(*args, **options))
    path = onnx_models.save(onnx_models.linear(), tmp_path / "model.onnx")
    assert [node.operator for node in read_model_file(path).graph.nodes] == ["Mul", "Add"]
    assert len(maps) == (most_bytes == 1)


def test_rejects_missing_file(tmp_path):
    """With the system's reason."""
    with pytest.raises(ModelLoadError, match=r"cannot read model\.onnx: there is no such file"):
        read_model_file(tmp_path / "model.onnx")


def test_reads_name_of_sparse_constant(tmp_path):
    """It is that of its values."""
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [1], [2.0])
    indices = helper.make_tensor("at", TensorProto.INT64, [1], [0])
    model = onnx_models.linear()
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [3]))
    assert read(model, tmp_path).graph.constants["sparse"] == Tensor()

"""Inference of batch axes from declarations and settings."""

import pytest

from inferd.config.settings import ModelSettings
from inferd.runtime.batch_axes.inference import has_configured_axes, infer_batch_axes, loose_dimensions
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.signature import tensor_spec
from tests.unit.runtime.specs import spec


def shapes(**by_name: tuple) -> list:
    return [spec(name, shape) for name, shape in by_name.items()]


def axes(inputs: list, outputs: list, settings: ModelSettings | None = None) -> dict[str, int | None]:
    signature = infer_batch_axes(inputs, outputs, settings or ModelSettings())[0].signature
    assert signature.batchable
    return {each.name: each.batch_axis for each in (*signature.inputs, *signature.outputs)}


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        pytest.param(shapes(x=("batch", 3)), shapes(y=("batch", 3)), {"x": 0, "y": 0}, id="named"),
        pytest.param(shapes(x=(None, 3)), shapes(y=(None, 3)), {"x": 0, "y": 0}, id="anonymous"),
        pytest.param(shapes(x=("rows", 3)), shapes(y=("rows",)), {"x": 0, "y": 0}, id="any name, first"),
        pytest.param(shapes(x=("batch", 3)), shapes(y=("Gemm_dim_0", 3)), {"x": 0, "y": 0}, id="name lost on the way"),
        pytest.param(shapes(a=("batch", 3), b=(None, 2)), shapes(y=("batch",)), {"a": 0, "b": 0, "y": 0}, id="mixed"),
        pytest.param(
            shapes(x=("time", "batch", 8)), shapes(y=("batch", 8)), {"x": 1, "y": 0}, id="a good name, second"
        ),
        pytest.param(
            shapes(x=("time", "batch", 8)), shapes(y=("time", "batch")), {"x": 1, "y": 1}, id="a better name than first"
        ),
        pytest.param(shapes(x=("T", "N", 8)), shapes(y=("T", "N")), {"x": 1, "y": 1}, id="N"),
        pytest.param(shapes(x=("batch", "n", 3)), shapes(y=("batch", "n")), {"x": 0, "y": 0}, id="batch before n"),
        pytest.param(
            shapes(x=("batch", "seq"), y=("batch", "seq")),
            shapes(z=("batch", "seq")),
            {"x": 0, "y": 0, "z": 0},
            id="tokens",
        ),
        pytest.param(
            shapes(x=("batch", 3), k=(), size=(2,), mask=(1, "len")),
            shapes(y=("batch", 3), classes=(10,)),
            {"x": 0, "k": None, "size": None, "mask": None, "y": 0, "classes": None},
            id="shared",
        ),
        pytest.param(shapes(x=("batch", 3)), shapes(y=()), {"x": 0, "y": None}, id="rank not declared"),
    ],
)
def test_infers_batch_axes(inputs, outputs, expected):
    """By name, and by position where names are no evidence."""
    assert axes(inputs, outputs) == expected


@pytest.mark.parametrize(
    ("inputs", "outputs", "why"),
    [
        pytest.param(shapes(x=(1, 3)), shapes(y=(1, 3)), "no input has an open dimension", id="fixed 1"),
        pytest.param(shapes(x=(8, 3)), shapes(y=(8, 3)), "no input has an open dimension", id="fixed 8"),
        pytest.param(shapes(x=(1, "length")), shapes(y=(1, "length")), "no input has", id="fixed 1, open length"),
        pytest.param(shapes(x=(1, 3, "N")), shapes(y=(1, "N")), "no input has", id="N points in one cloud"),
        pytest.param(shapes(x=("batch", 3)), shapes(y=(1, 3)), "no output has an open dimension", id="output fixed"),
        pytest.param(
            shapes(x=("N", 3)), shapes(y=("N", "N")), 'output "y" [N,N] has the dimension N twice', id="pairwise"
        ),
        pytest.param(
            shapes(query=("q", 3), docs=("d", 3)),
            shapes(score=("q", "d")),
            'input "query" [q,3] starts with an open dimension other than d',
            id="two counts",
        ),
        pytest.param([], shapes(y=(3,)), "no input has an open dimension", id="no inputs"),
    ],
)
def test_returns_reason_when_not_batchable(inputs, outputs, why):
    """No tensor has a batch axis then."""
    (candidate,) = infer_batch_axes(inputs, outputs, ModelSettings())
    assert not candidate.signature.batchable
    assert why in candidate.why_not_batchable


def test_ignores_name_that_occurs_once():
    """Some exporters invent a name for every open dimension."""
    found = axes(shapes(a=("unk_1", 4), b=("unk_2", 4)), shapes(y=("unk_3", 2)))
    assert found == {"a": 0, "b": 0, "y": 0}
    assert axes(shapes(a=("batch_a", 4), b=("batch_b", 4)), shapes(y=("c", 2))) == {"a": 0, "b": 0, "y": 0}


def test_orders_candidates_by_likelihood():
    """If the first is contradicted, the next may hold."""
    candidates = infer_batch_axes(shapes(x=("n", "batch")), shapes(y=("n", "batch")), ModelSettings())
    assert [candidate.signature.inputs[0].batch_axis for candidate in candidates] == [1, 0]


def test_optional_input_is_shared_unless_named_like_batch():
    """It never prevents batching, because it may be omitted."""
    inputs = [
        spec("x", ("batch", 3)),
        spec("scale", ("k",), optional=True),
        spec("open", (None,), optional=True),
        spec("state", ("batch", 2), optional=True),
    ]
    found = axes(inputs, shapes(y=("batch", 3)))
    assert found == {"x": 0, "scale": None, "open": None, "state": 0, "y": 0}
    (nothing,) = infer_batch_axes([spec("x", ("batch",), optional=True)], shapes(y=("batch",)), ModelSettings())
    assert not nothing.signature.batchable


def test_loose_dimension_is_no_batch_axis():
    """It stands for several sizes, which the signature does not compare."""
    over = settings(loose_dimensions=["time"])
    (candidate,) = infer_batch_axes(shapes(x=(3, "time"), y=(3, "time")), shapes(z=(3, "time")), over)
    assert (candidate.signature.batchable, candidate.signature.loose_dimensions) == (False, {"time"})


def settings(**sections: dict) -> ModelSettings:
    return ModelSettings.model_validate(sections)


def test_configured_batch_axis_overrides_names():
    """Other tensors follow the name of that dimension."""
    over = settings(inputs={"x": {"batch_axis": 1}})
    assert axes(shapes(x=("a", "b"), m=("b", 2)), shapes(y=("b",), z=("a", "b")), over) == {
        "x": 1,
        "m": 0,
        "y": 0,
        "z": 1,
    }


def test_null_batch_axis_shares_input():
    """Whatever the names of its dimensions."""
    over = settings(inputs={"table": {"batch_axis": None}})
    assert axes(shapes(x=("batch", 3), table=("rows", 3)), shapes(y=("batch",)), over)["table"] is None


def test_other_settings_do_not_configure_axes():
    """A warm-up shape says nothing about the batch axis."""
    over = settings(inputs={"x": {"warmup_shape": [1, 80]}})
    assert axes(shapes(x=("batch", "time")), shapes(y=("batch",)), over) == {"x": 0, "y": 0}
    assert not has_configured_axes(over)
    assert has_configured_axes(settings(outputs={"y": {"batch_axis": 0}}))


@pytest.mark.parametrize(
    ("over", "message"),
    [
        (
            {"inputs": {"x": {"batch_axis": 1}}},
            r"inputs.x.batch_axis: expected an open dimension of \[batch,3\], got 1",
        ),
        (
            {"inputs": {"x": {"batch_axis": 7}}},
            r"inputs.x.batch_axis: expected an open dimension of \[batch,3\], got 7",
        ),
        ({"outputs": {"y": {"batch_axis": 2}}}, r"outputs.y.batch_axis: expected an open dimension of \[batch,3\]"),
        (
            {"inputs": {"size": {"batch_axis": 0}}},
            r"inputs.size.batch_axis: expected an open dimension of \[2\], got 0",
        ),
        ({"inputs": {"x": {"warmup_shape": [1, 4]}}}, r"inputs.x.warmup_shape: .* fits \[batch,3\], got \[1, 4\]"),
        ({"inputs": {"x": {"warmup_shape": [3]}}}, r"inputs.x.warmup_shape: expected a shape that fits \[batch,3\]"),
    ],
)
def test_rejects_settings_that_contradict_model(over, message):
    """Naming the field, the expected and the given value."""
    with pytest.raises(ModelLoadError, match=message):
        infer_batch_axes(shapes(x=("batch", 3), size=(2,)), shapes(y=("batch", 3)), settings(**over))


def test_rejects_configured_axis_of_unbatchable_model():
    """Serving each request alone would ignore the setting."""
    with pytest.raises(ModelLoadError, match="batch_axis is set, but the model cannot batch: no output"):
        infer_batch_axes(shapes(x=("n", 3)), shapes(y=(1,)), settings(inputs={"x": {"batch_axis": 0}}))


def test_converts_declared_shape():
    """Open dimensions have a name, none, or a placeholder of the exporter."""
    assert tensor_spec("input", "x", "tensor(int64)", ["batch", None, "", "?", "-1", -1, 0, 3]) == spec(
        "x", ("batch", None, None, None, None, None, 0, 3), datatype="INT64"
    )


@pytest.mark.parametrize(
    ("onnx_type", "message"),
    [
        (
            "seq(map(int64,tensor(float)))",
            'output "y" is of type seq.* only tensors can be served; convert .* zipmap off',
        ),
        ("seq(tensor(float))", 'output "y" is of type .*, only tensors can be served$'),
        ("optional(tensor(float))", 'output "y" is of type .*, only tensors can be served$'),
        ("sparse_tensor(float)", 'output "y" is of type .*, only tensors can be served$'),
        ("tensor(float8e4m3fn)", r'output "y" is of type tensor\(float8e4m3fn\), an element type that cannot be sent'),
        ("tensor(int4)", r'output "y" is of type tensor\(int4\), an element type that cannot be sent'),
        ("tensor(complex64)", r'output "y" is of type tensor\(complex64\), an element type that cannot be sent'),
    ],
)
def test_rejects_types_that_protocols_lack(onnx_type, message):
    """Other values than tensors, and some element types."""
    with pytest.raises(ModelLoadError, match=message):
        tensor_spec("output", "y", onnx_type, [])


INPUTS = [spec("ids", ("batch", "sequence"), datatype="INT64"), spec("size", (2, None))]


def test_accepts_loose_dimensions_of_model():
    """Or none."""
    assert loose_dimensions(["sequence"], INPUTS) == {"sequence"}
    assert loose_dimensions([], INPUTS) == frozenset()


@pytest.mark.parametrize(
    ("inputs", "have"), [(INPUTS, "which are batch, sequence"), (INPUTS[1:], "which are none with a name")]
)
def test_rejects_unknown_loose_dimension(inputs, have):
    """Listing the known ones."""
    with pytest.raises(ModelLoadError, match=rf"^loose_dimensions: expected open dimensions .*, {have}, got seq$"):
        loose_dimensions(["seq"], inputs)


def test_none_by_setting():
    """The settings may say that no dimension counts rows."""
    (candidate,) = infer_batch_axes(
        shapes(x=("batch", 3)), shapes(y=("batch",)), ModelSettings.model_validate({"batch_axes": "none"})
    )
    assert (candidate.signature.batchable, candidate.is_chosen) == (False, True)
    assert candidate.why_not_batchable == "batch_axes is none"


def test_first_by_setting():
    """The settings may say that the first dimension of each tensor counts rows, whatever the names suggest."""
    over = settings(batch_axes="first", inputs={"table": {"batch_axis": None}})
    assert has_configured_axes(over)
    tensors = shapes(x=("time", "batch", 8), y=(None, 2), table=(3,))
    assert axes(tensors, shapes(z=("time",)), over) == {"x": 0, "y": 0, "table": None, "z": 0}


def test_rejects_first_axis_that_model_lacks():
    """Naming the first tensor whose dimension is fixed."""
    why = r'^batch_axes is first \(a max_batch_size above 0\), but the first dimension of input "y" \[1,2\] is not open'
    with pytest.raises(ModelLoadError, match=why):
        infer_batch_axes(shapes(x=("n", 3), y=(1, 2)), shapes(z=("n",)), settings(batch_axes="first"))

"""Which column is which input."""

from dataclasses import dataclass, field

import pyarrow as pa
import pytest

from inferd.batch.binding import Binding, Columns, bind
from inferd.batch.blocks import BadRows, ColumnTensor
from inferd.batch.errors import UsageError
from inferd.batch.options import JobOptions
from inferd.dtypes import BY_NAME
from inferd.runtime.signature import ModelSignature, TensorSpec


@dataclass
class _Tokens:
    column: str
    inputs: tuple[str, ...] = ("ids",)
    made: list[pa.Array] = field(default_factory=list)

    def __call__(self, column: pa.Array) -> tuple[dict[str, ColumnTensor], BadRows]:
        raise NotImplementedError


def _spec(name: str, datatype: str, *shape: int | str | None, **rest: object) -> TensorSpec:
    return TensorSpec(name=name, datatype=BY_NAME[datatype], shape=("rows", *shape), **({"batch_axis": 0} | rest))


def _signature(*inputs: TensorSpec, outputs: tuple[TensorSpec, ...] = ()) -> ModelSignature:
    return ModelSignature(inputs=inputs, outputs=outputs or (_spec("y", "FP32", 3),), batchable=True)


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema(list(columns.items()))


def _bind(signature: ModelSignature, schema: pa.Schema, *given: object, **options: object) -> Binding:
    texts = {name: options.pop(name) for name in ("is_text", "extra") if name in options}
    return bind(
        signature,
        Columns(schema=schema, **texts),
        JobOptions(model="m", inputs=("in",), output="out", **options),
        *given,
    )


def _refused(signature: ModelSignature, schema: pa.Schema, *given: object, **options: object) -> str:
    with pytest.raises(UsageError) as raised:
        _bind(signature, schema, *given, **options)
    return str(raised.value)


X = _spec("x", "FP32", 3)
PAIR = _signature(_spec("a", "FP32"), _spec("b", "INT64", "n"))
FLOATS = pa.list_(pa.float32(), 3)


def test_columns_with_the_names_of_inputs():
    """Equal names meet; other columns are neither read nor kept."""
    binding = _bind(PAIR, _schema(b=pa.list_(pa.int64()), other=pa.string(), a=pa.float32()))
    assert binding.inputs == {"a": ("a",), "b": ("b",)}
    assert binding.read_schema == _schema(a=pa.float32(), b=pa.list_(pa.int64()))
    assert binding.joined == ()
    assert binding.output_schema == _schema(y=FLOATS)


def test_only_column_is_the_only_input():
    """One column and one required input need no name."""
    optional = _spec("scale", "FP32", optional=True)
    assert _bind(_signature(X, optional), _schema(values=FLOATS)).inputs == {"x": ("values",)}


def test_optional_inputs_need_a_column_of_their_name():
    """An optional input without a column keeps its default."""
    signature = _signature(X, _spec("scale", "FP32", optional=True))
    assert _bind(signature, _schema(x=FLOATS, factor=pa.float32())).inputs == {"x": ("x",)}
    assert _bind(signature, _schema(x=FLOATS, scale=pa.float32())).inputs == {"x": ("x",), "scale": ("scale",)}


@pytest.mark.parametrize(
    ("schema", "given", "columns"),
    [
        (_schema(v=FLOATS, w=FLOATS), "w", ("w",)),
        (_schema(c=pa.int64(), b=pa.int64(), a=pa.float64()), "a,b,c", ("a", "b", "c")),
        (_schema(label=pa.int64(), p0=pa.int64(), p1=pa.int64(), p2=pa.int64()), "p*", ("p0", "p1", "p2")),
        (pa.schema([("a,b", FLOATS)]), "a,b", ("a,b",)),
    ],
)
def test_named_columns(schema, given, columns):
    """--map names a column, several, or a pattern of several, in the order of the file."""
    assert _bind(_signature(X), schema, mapping={"x": given}).inputs == {"x": columns}


def test_kept_columns_and_ids():
    """Ids, kept columns and outputs stand in this order, under the names given."""
    signature = _signature(X, outputs=(_spec("y", "FP32", "n", 3), _spec("z", "BYTES")))
    schema = _schema(x=FLOATS, id=pa.int64(), text=pa.string())
    binding = _bind(signature, schema, join=("text", "x"), outputs={"z": "label", "y": "scores"}, row_ids=True)
    expected = _schema(
        source=pa.string(), row=pa.int64(), text=pa.string(), x=FLOATS, label=pa.string(), scores=pa.list_(FLOATS)
    )
    assert binding.output_schema == expected
    assert binding.read_schema.names == ["x", "text"]
    assert _bind(signature, schema, join=()).joined == ("x", "id", "text")
    assert _bind(signature, schema, join=(), columns=("x", "id")).joined == ("x", "id")
    assert _bind(signature, schema, extra=("id",)).read_schema == _schema(x=FLOATS, id=pa.int64())


def test_text_is_read_in_wide_types():
    """Values of text files are compared with the model's type when their row is known, not when they are read."""
    signature = _signature(
        _spec("f", "FP16"), _spec("i", "INT8"), _spec("u", "UINT8"), _spec("flag", "BOOL"), _spec("t", "BYTES"), X
    )
    schema = _schema(
        f=pa.int64(), i=pa.int64(), u=pa.float64(), flag=pa.int64(), t=pa.date32(), x=pa.null(), kept=pa.date32()
    )
    binding = _bind(signature, schema, join=("f", "kept"), is_text=True)
    read = dict(zip(binding.read_schema.names, binding.read_schema.types, strict=True))
    assert read == {
        "f": pa.float64(),
        "i": pa.int64(),
        "u": pa.float64(),
        "flag": pa.int64(),
        "t": pa.string(),
        "x": pa.list_(pa.float64()),
        "kept": pa.date32(),
    }
    assert binding.output_schema.field("f").type == pa.float64()
    given = _bind(signature, schema.set(0, pa.field("f", pa.float32())), is_text=True, types={"f": "float"})
    assert given.read_schema.field("f").type == pa.float32()


def test_no_column_is_twice_in_an_input():
    """A name and a pattern that has it too are refused."""
    schema = _schema(a=pa.int64(), b=pa.int64())
    with pytest.raises(UsageError, match='--map x: column "a" is among the columns twice'):
        _bind(_signature(X), schema, mapping={"x": "a,*"})


def test_columns_of_nulls_have_the_type_of_the_model():
    """A column that has no value in the first file may have some in the next one."""
    binding = _bind(PAIR, _schema(a=pa.null(), b=pa.null(), kept=pa.null()), join=("kept",))
    assert binding.read_schema == _schema(a=pa.float64(), b=pa.list_(pa.int64()), kept=pa.null())


def test_text_of_a_preparation_stays_text():
    """A text that looks like a number is a text for its tokenizer."""
    signature = _signature(_spec("ids", "INT64", "n"))
    binding = _bind(signature, _schema(title=pa.int64()), _Tokens("title"), is_text=True)
    assert binding.read_schema == _schema(title=pa.string())
    assert binding.inputs == {}


@pytest.mark.parametrize(
    ("column", "shape"),
    [
        (pa.float64(), (1,)),
        (pa.list_(pa.float64()), (1,)),
        (pa.list_(pa.list_(pa.float64())), (1, 28, 28)),
        (pa.list_(pa.list_(pa.list_(pa.float64()))), (1, 28, 28)),
        (pa.dictionary(pa.int8(), pa.float64()), ()),
        (pa.large_list(pa.list_view(pa.float64())), ("n", "m")),
        (pa.fixed_shape_tensor(pa.int8(), (2, 3)), (2, 3)),
        (pa.list_(pa.fixed_shape_tensor(pa.int8(), (2, 3))), ("n", 2, 3)),
    ],
)
def test_columns_that_an_input_takes(column, shape):
    """Any layout of lists in each other, which may leave out the dimensions of 1."""
    assert _bind(_signature(_spec("x", "FP32", *shape)), _schema(x=column)).inputs == {"x": ("x",)}


def test_one_row_of_a_model_that_does_not_batch():
    """The first dimension of its inputs is 1 where the lists leave it out."""
    x = TensorSpec(name="x", datatype=BY_NAME["FP32"], shape=("rows", 3))
    signature = ModelSignature(inputs=(x,), outputs=(x,), batchable=False)
    for column in (pa.list_(pa.float32()), pa.list_(pa.list_(pa.float32()))):
        binding = _bind(signature, _schema(x=column))
        assert binding.output_schema == _schema(x=pa.list_(pa.list_(pa.float32(), 3)))


@pytest.mark.parametrize(
    ("schema", "options", "text"),
    [
        (
            _schema(pixels=FLOATS, id=pa.string()),
            {},
            (
                'input "x" (FP32 [3] in each row): expected a column of that name, got pixels, id; '
                "name one with --map x=pixels"
            ),
        ),
        (
            _schema(id=pa.string(), p_0=pa.int64(), p_1=pa.int64(), p_2=pa.int64()),
            {},
            (
                'input "x" (FP32 [3] in each row): expected a column of that name, got id, p_0, p_1, p_2; '
                "name one with --map x='p_*'"
            ),
        ),
        (
            _schema(one=pa.int64(), two=pa.int64(), three=pa.int64()),
            {},
            (
                'input "x" (FP32 [3] in each row): expected a column of that name, got one, two, three; '
                "name one with --map x=one,two,three"
            ),
        ),
        (
            _schema(x=pa.string(), v=FLOATS),
            {},
            'column "x" for input "x": expected FP32 [3] in each row, got string; name another one with --map x=v',
        ),
        (
            _schema(x=pa.list_(pa.list_(pa.float32()))),
            {},
            (
                'column "x" for input "x": expected FP32 [3] in each row, got lists of 2 dimensions of float; '
                "name another one with --map x=COLUMN"
            ),
        ),
        (
            _schema(x=pa.timestamp("s")),
            {},
            (
                'column "x" for input "x": expected FP32 [3] in each row, got timestamp[s]; '
                "name another one with --map x=COLUMN"
            ),
        ),
        (
            _schema(a=pa.int8(), b=pa.int8()),
            {"mapping": {"x": "a,b"}},
            "--map x: expected [3] in each row, got 2 columns",
        ),
        (
            _schema(a=pa.int8(), b=pa.int8(), c=pa.string()),
            {"mapping": {"x": "a,b,c"}},
            'column "c" for input "x": expected single values for FP32, got string',
        ),
        (
            _schema(x=FLOATS),
            {"mapping": {"y": "x"}},
            '--map: there is no input "y", only x',
        ),
        (
            _schema(pixels=FLOATS),
            {"mapping": {"x": "pixel"}},
            '--map x: there is no column "pixel", only pixels; did you mean pixels?',
        ),
        (
            _schema(x=FLOATS),
            {"outputs": {"Y": "score"}},
            '--output: there is no output "Y", only y',
        ),
        (pa.schema([("x", FLOATS), ("x", FLOATS)]), {}, 'column "x": expected one of that name, got 2'),
        (_schema(x=FLOATS), {"join": ("z",)}, '--join: there is no column "z", only x'),
        (_schema(x=FLOATS), {"columns": ("z",)}, '--columns: there is no column "z", only x'),
        (
            _schema(x=FLOATS, y=pa.string()),
            {"join": ()},
            (
                'column "y" would be in the output twice; give an output another name with --output y=COLUMN, '
                "or leave it out of --join"
            ),
        ),
    ],
)
def test_refusals(schema, options, text):
    """Errors name both sides, and what to type."""
    assert _refused(_signature(X), schema, **options) == text


def test_several_inputs_without_a_column():
    """All of them are named at once, each with the column that fits it."""
    text = _refused(PAIR, _schema(number=pa.float32(), numbers=pa.list_(pa.int64())))
    assert text == (
        'inputs "a" (FP32 [] in each row), "b" (INT64 [n] in each row): expected a column of that name, got number, '
        "numbers; name one with --map a=number --map b=numbers"
    )


def test_prepared_inputs_take_no_column():
    """Its inputs cannot be mapped, and its column has to be there."""
    signature = _signature(_spec("ids", "INT64", "n"))
    mapped = _refused(signature, _schema(text=pa.string()), _Tokens("text"), mapping={"ids": "text"})
    assert mapped == "--map ids: --tokenize or --image fills this input, so it takes no column"
    absent = _refused(signature, _schema(text=pa.string()), _Tokens("texts"))
    assert absent == '--tokenize or --image: there is no column "texts", only text; did you mean text?'


def test_texts_for_tokens():
    """A column of texts for an input of tokens says how they are made."""
    text = _refused(_signature(_spec("ids", "INT64", "n")), _schema(text=pa.string()))
    assert text == (
        'column "text" for input "ids": expected INT64 [n] in each row, got string; '
        "name another one with --map ids=COLUMN, or make tokens of texts with --tokenize"
    )

"""Texts to tokens: what `tokenizers` gives for each text alone."""

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from inferd.batch.errors import UsageError
from inferd.batch.options import TokenizeOptions
from inferd.batch.preparation.tokens import Tokens, tokens
from inferd.batch.tensors import Dense, Ragged
from inferd.dtypes import BY_NAME
from inferd.runtime.signature import ModelSignature, TensorSpec

TEXTS = ["a b", "", "a b a b a b", "ü b", "b"]


def tokenizer(*, special: bool = True) -> Tokenizer:
    """Return a tokenizer of words."""
    words = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3, "a": 4, "b": 5}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
    return made


def saved(folder: Path, made: Tokenizer) -> str:
    """Return the file of a tokenizer."""
    path = folder / "tokenizer.json"
    made.save(str(path))
    return str(path)


def signature(
    names: Sequence[str] = ("input_ids", "attention_mask", "token_type_ids"),
    length: int | str = "tokens",
    datatype: str = "INT64",
) -> ModelSignature:
    """Return a model of tokens."""
    inputs = [TensorSpec(name=name, datatype=BY_NAME[datatype], shape=("rows", length), batch_axis=0) for name in names]
    return ModelSignature(inputs=tuple(inputs), outputs=(), batchable=True)


def made(folder: Path, of: ModelSignature | None = None, by: Tokenizer | None = None, **options: object) -> Tokens:
    """Return what makes tokens of the column ``text``."""
    given = TokenizeOptions(file=saved(folder, by or tokenizer()), **options)  # type: ignore[arg-type]
    return tokens(given, of or signature(), pa.schema([("id", pa.int64()), ("text", pa.string())]))


def rows(tensor: Dense | Ragged) -> list[list[int]]:
    """Return each row."""
    return [tensor.rows(slice(row, row + 1))[0].tolist() for row in range(len(tensor))]


def test_gives_what_library_gives_for_each_text(tmp_path: Path) -> None:
    """All three inputs are those of each text alone, without padding, whatever its neighbours are."""
    found, bad = made(tmp_path)(pa.array(TEXTS))
    alone = [tokenizer().encode(text) for text in TEXTS]
    assert rows(found["input_ids"]) == [each.ids for each in alone]
    assert rows(found["attention_mask"]) == [each.attention_mask for each in alone]
    assert rows(found["token_type_ids"]) == [each.type_ids for each in alone]
    assert rows(found["token_type_ids"])[0] == [0, 1, 1, 1]
    assert not bad


def test_many_texts_come_in_their_order(tmp_path: Path) -> None:
    """More texts than are encoded at a time keep their order."""
    texts = [" ".join(["a"] * (row % 7)) for row in range(1000)]
    found, _ = made(tmp_path)(pa.array(texts, pa.large_string()))
    assert [len(row) - 2 for row in rows(found["input_ids"])] == [row % 7 for row in range(1000)]


def test_rows_of_one_length_are_dense(tmp_path: Path) -> None:
    """Texts of as many tokens become one array, in the model's type."""
    found, _ = made(tmp_path, signature(datatype="INT32"))(pa.array(["a", "b"]))
    assert isinstance(found["input_ids"], Dense)
    assert found["input_ids"].array.dtype == np.int32


def test_padding_is_each_rows_own(tmp_path: Path) -> None:
    """Rows are filled up to a multiple, with the tokenizer's padding and a mask that leaves it out."""
    found, _ = made(tmp_path, pad_to=4)(pa.array(["a", "a b a"]))
    assert rows(found["input_ids"]) == [[1, 4, 2, 3], [1, 4, 5, 4, 2, 3, 3, 3]]
    assert rows(found["attention_mask"]) == [[1, 1, 1, 0], [1, 1, 1, 1, 1, 0, 0, 0]]


def test_padding_of_file_is_left_out_but_for_its_side(tmp_path: Path) -> None:
    """A file that fills up for training fills up nothing here; which side it fills is kept."""
    by = tokenizer()
    by.enable_padding(length=32, pad_id=5, direction="left")
    assert rows(made(tmp_path, by=by)(pa.array(["a"]))[0]["input_ids"]) == [[1, 4, 2]]
    assert rows(made(tmp_path, by=by, pad_to=4)(pa.array(["a"]))[0]["input_ids"]) == [[5, 1, 4, 2]]


def test_fixed_length_of_model_is_met(tmp_path: Path) -> None:
    """A model of a fixed length gets that: texts are cut and filled up."""
    found, bad = made(tmp_path, signature(length=5))(pa.array(["a", "a b a b a b"]))
    assert rows(found["input_ids"]) == [[1, 4, 2, 3, 3], [1, 4, 5, 4, 2]]
    assert not bad


def test_longer_texts_are_cut_as_library_cuts(tmp_path: Path) -> None:
    """Texts are cut to the length asked for, or else to that of the file, from the side that it says."""
    by = tokenizer()
    by.enable_truncation(4, direction="left", stride=1)
    text = "a b b b a"
    assert rows(made(tmp_path, by=by)(pa.array([text]))[0]["input_ids"]) == [[1, 5, 4, 2]]
    assert rows(made(tmp_path, by=by, max_length=5)(pa.array([text]))[0]["input_ids"]) == [[1, 5, 5, 4, 2]]
    assert rows(made(tmp_path, max_length=4)(pa.array([text]))[0]["input_ids"]) == [[1, 4, 5, 2]]


def test_longer_texts_are_bad_without_truncation(tmp_path: Path) -> None:
    """Without truncation a longer text is an error with its length, and its neighbours are not."""
    found, bad = made(tmp_path, max_length=4, truncate=False)(pa.array(["a b", "a b a", "b"]))
    assert bad == {1: "expected 1 to 4 tokens, got 5"}
    assert rows(found["input_ids"])[0] == [1, 4, 5, 2]
    assert rows(found["input_ids"])[2] == [1, 5, 2]


def test_bad_texts_cost_their_rows(tmp_path: Path) -> None:
    """Null, bytes that are no text, and texts without tokens are bad; the others are what they are alone."""
    column = pa.array([b"a", None, b"\xff", b"", b"b"], pa.binary())
    schema = pa.schema([("text", pa.binary())])
    given = TokenizeOptions(file=saved(tmp_path, tokenizer(special=False)), column="text")
    found, bad = tokens(given, signature(), schema)(column)
    assert sorted(bad) == [1, 2, 3]
    assert "null" in bad[1]
    assert "0xff at 0" in bad[2]
    assert "got 0" in bad[3]
    assert found["input_ids"].rows(slice(0, 1)).tolist() == [[4]]
    assert found["input_ids"].rows(slice(4, 5)).tolist() == [[5]]


def test_failure_of_library_costs_its_text(tmp_path: Path) -> None:
    """A text that the tokenizer fails on is bad; those encoded with it are not."""
    by = Tokenizer(models.WordLevel({"a": 0}, unk_token="[UNK]"))
    by.pre_tokenizer = pre_tokenizers.Whitespace()
    found, bad = made(tmp_path, by=by)(pa.array(["a", "zebra", "a a"]))
    assert list(bad) == [1]
    assert bad[1].startswith("the tokenizer fails: ")
    assert found["input_ids"].rows(slice(2, 3)).tolist() == [[0, 0]]


def test_no_rows_have_type_and_rank(tmp_path: Path) -> None:
    """No texts, and bad ones only, give tensors that can be selected from."""
    for column in (pa.array([], pa.string()), pa.array([None], pa.string())):
        found, _ = made(tmp_path)(column)
        kept = found["input_ids"].select(np.zeros(len(column), np.bool_))
        assert kept.rows(slice(None)).shape == (0, 0)


def test_model_without_batch_axis_gets_its_rank(tmp_path: Path) -> None:
    """A model that takes one request at a time gets a dimension of 1."""
    spec = TensorSpec(name="input_ids", datatype=BY_NAME["INT64"], shape=(1, None), batch_axis=None)
    found, _ = made(tmp_path, ModelSignature(inputs=(spec,), outputs=(), batchable=False))(pa.array(["a", "a b"]))
    assert [found["input_ids"].rows(slice(row, row + 1)).shape for row in (0, 1)] == [(1, 1, 3), (1, 1, 4)]


def test_only_input_is_ids(tmp_path: Path) -> None:
    """A model with one input needs no names."""
    assert made(tmp_path, signature(["tokens"])).inputs == ("tokens",)
    assert made(tmp_path, signature(["x", "y"]), fields={"ids": "y"}).inputs == ("y",)


def test_is_same_in_another_process(tmp_path: Path) -> None:
    """What is pickled makes the same tokens, and knows what they depend on."""
    here = made(tmp_path, max_length=4, pad_to=3)
    there = pickle.loads(pickle.dumps(here))
    column = pa.array(TEXTS)
    assert rows(here(column)[0]["input_ids"]) == rows(there(column)[0]["input_ids"])
    assert here.identity == there.identity
    assert len(here.identity["tokenizer"]) == 64


@pytest.mark.parametrize(
    ("of", "options", "message"),
    [
        (signature(["x", "y"]), {}, 'no input "input_ids", only x, y; say ids=INPUT'),
        (
            signature(["input_ids"]),
            {"fields": {"type_ids": "input_idz"}},
            "type_ids: .* did you mean input_ids",
        ),
        (signature(["input_ids"], datatype="FP32"), {}, 'expected integers in one dimension .* "input_ids", got FP32'),
        (signature(["input_ids"], length=8), {"max_length": 9}, "max_length: expected at most the 8 tokens"),
        (signature(["input_ids"], length=8), {"pad_to": 9}, "pad_to: expected at most the 8 tokens"),
        (signature(["input_ids"]), {"max_length": 2}, "max_length: expected more than the 2 special tokens, got 2"),
        (signature(["input_ids"]), {"column": "texts"}, '--tokenize column: .* "texts".* did you mean text'),
        (signature(["input_ids"]), {"column": "id"}, 'expected texts in column "id", got int64'),
    ],
)
def test_refuses(tmp_path: Path, of: ModelSignature, options: dict[str, object], message: str) -> None:
    """What does not fit the model or the columns is refused before the first row."""
    with pytest.raises(UsageError, match=message):
        made(tmp_path, of, **options)


def test_refuses_several_columns_and_other_files(tmp_path: Path) -> None:
    """One of several columns of texts has to be named; a file has to be that of a tokenizer."""
    schema = pa.schema([("a", pa.string()), ("b", pa.string())])
    with pytest.raises(UsageError, match="expected one column of texts, got a, b; name it"):
        tokens(TokenizeOptions(file=saved(tmp_path, tokenizer())), signature(), schema)
    other = tmp_path / "other.json"
    other.write_text("{}")
    with pytest.raises(UsageError, match=r"other\.json: expected a tokenizer\.json"):
        tokens(TokenizeOptions(file=str(other)), signature(), schema)

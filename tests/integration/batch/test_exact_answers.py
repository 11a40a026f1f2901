"""Whole jobs: every answer is the one that ONNX Runtime gives for that row alone, whatever ran beside it."""

from threading import Event

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inferd import demo
from inferd.batch.job import Job
from inferd.batch.options import JobOptions, RunOptions, TokenizeOptions
from inferd.config.settings import Settings
from scripts import build_minilm
from tests import onnx_models


@pytest.fixture
def run(tmp_path):
    """Run a job over a table with a column ``id``, in small batches and parts; return its answers by id."""

    def run(model, table, **options):
        source, output = tmp_path / "rows.parquet", tmp_path / "answers"
        pq.write_table(table, source, row_group_size=100)
        made = JobOptions(
            model=str(model),
            inputs=(str(source),),
            output=str(output),
            join=("id",),
            part_rows=100,
            # Nothing is measured if both are given.
            batch_rows=16,
            batch_bytes=1 << 20,
            **options,
        )
        summary = Job(made, RunOptions(workers=0), Settings()).run(Event())
        assert (summary.rows, summary.errors, summary.is_complete) == (table.num_rows, 0, True)
        answers = pq.read_table(output).to_pylist()
        # In the order of the source.
        assert [answer.pop("id") for answer in answers] == table["id"].to_pylist()
        return answers, summary

    return run


def _alone(model, rows):
    """Return the outputs of each row, run alone by ONNX Runtime; ``rows`` have the inputs with their batch axis."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(names, row), strict=True)) for row in rows]


def _assert_equal(answers, expected, tolerance=1e-6):
    assert len(answers) == len(expected)
    for answer, outputs in zip(answers, expected, strict=True):
        assert answer.keys() == outputs.keys()
        for name, output in outputs.items():
            got = np.array(answer[name], output.dtype)
            assert got.shape == output.shape[1:]
            if output.dtype.kind == "f":
                np.testing.assert_allclose(got, output[0], rtol=tolerance, atol=tolerance)
            else:
                np.testing.assert_array_equal(got, output[0])


def test_digits(run):
    """All 1797 digits, labels and probabilities."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  it takes a second, in all processes of tests

    pictures = load_digits().data.astype(np.float32)
    table = pa.table({"id": range(len(pictures)), "X": pa.FixedSizeListArray.from_arrays(pictures.ravel(), 64)})
    answers, summary = run("digits", table)
    expected = _alone(demo.repository() / "1" / "model.onnx", [{"X": picture[None]} for picture in pictures])
    _assert_equal(answers, expected, tolerance=1e-5)
    assert max(summary.batches) > 1


def test_texts_of_many_lengths(run):
    """MiniLM on tokens of texts, which run together by length and without padding."""
    folder = build_minilm.build()
    random = np.random.default_rng(3)
    words = ["the", "cat", "sat", "on", "a", "mat", "while", "rain", "fell", "over", "hills", "and", "people", "spoke"]
    texts = [" ".join(random.choice(words, random.integers(1, 20))) for _ in range(60)]
    table = pa.table({"id": range(len(texts)), "text": texts})
    tokenize = TokenizeOptions(file=str(folder / "tokenizer.json"), column="text")
    wanted = {"sentence_embedding": "sentence_embedding"}
    answers, summary = run(folder, table, tokenize=tokenize, outputs=wanted)
    tokenizer = build_minilm.load_tokenizer(folder)
    expected = _alone(folder / "1" / "model.onnx", [build_minilm.encode(tokenizer, [text]) for text in texts])
    _assert_equal(answers, [{name: each[name] for name in wanted} for each in expected], tolerance=1e-5)
    assert max(summary.batches) > 1


def test_several_inputs_and_outputs(run, tmp_path):
    """Rows of several lengths, in two columns of different types."""
    model = onnx_models.save(onnx_models.two_inputs(), tmp_path / "two.onnx")
    random = np.random.default_rng(4)
    rows = [
        {"a": random.standard_normal((1, length)).astype(np.float32), "b": random.integers(-9, 9, (1, length))}
        for length in random.integers(1, 9, 250)
    ]
    columns = {name: [row[name][0].tolist() for row in rows] for name in ("a", "b")}
    answers, summary = run(model, pa.table({"id": range(len(rows)), **columns}))
    _assert_equal(answers, _alone(model, rows))
    assert summary.parts > 1


def test_strings(run, tmp_path):
    """Texts with characters of all widths, and empty ones."""
    model = onnx_models.save(onnx_models.strings(), tmp_path / "strings.onnx")
    texts = [["", f"text {number}"] if number % 3 else ["ж", "𝄞" * number] for number in range(120)]
    answers, _ = run(model, pa.table({"id": range(len(texts)), "text": texts}))
    _assert_equal(answers, _alone(model, [{"text": np.array([text], object)} for text in texts]))


def test_nested_lists(run, tmp_path):
    """Lists in lists, of several lengths, for a model whose batch axis is its second."""
    model = onnx_models.save(onnx_models.batch_axis_one(), tmp_path / "nested.onnx")
    random = np.random.default_rng(5)
    rows = [random.standard_normal((length, 2)).astype(np.float32) for length in random.integers(1, 5, 150)]
    answers, _ = run(model, pa.table({"id": range(len(rows)), "x": [row.tolist() for row in rows]}))
    _assert_equal(answers, _alone(model, [{"x": row[:, None]} for row in rows]), tolerance=1e-5)


def test_model_that_may_not_batch(run, tmp_path):
    """Its answers would depend on what is beside a row, so each row runs alone."""
    model = onnx_models.save(onnx_models.brightness(), tmp_path / "brightness.onnx")
    random = np.random.default_rng(6)
    rows = [random.random((8, 8), np.float32) * (255 if number % 2 else 1) for number in range(40)]
    answers, summary = run(model, pa.table({"id": range(len(rows)), "pixels": [row.tolist() for row in rows]}))
    expected = _alone(model, [{"pixels": row[None]} for row in rows])
    # Its output has the batch dimension, as the model is not known to have rows.
    got = [float(np.ravel(answer["brightness"])[0]) for answer in answers]
    np.testing.assert_allclose(got, [float(each["brightness"][0]) for each in expected], rtol=1e-6)
    assert set(summary.batches) == {1}

"""Whole jobs over pictures and texts: what Pillow, `tokenizers` and the model give for each row alone."""

import io
import json
import os
import signal
import tarfile
from collections.abc import Mapping
from pathlib import Path
from threading import Event

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from inferd.batch import setup
from inferd.batch.blocks import BadRows, ColumnTensor
from inferd.batch.job import Job
from inferd.batch.options import ImageOptions, JobOptions, RunOptions, TokenizeOptions
from inferd.batch.tensors import Dense
from inferd.config.settings import Settings
from inferd.dtypes import BY_NAME
from tests import onnx_models

SIDE = 8


def _run(options: JobOptions, **run_options: object) -> tuple[pa.Table, list[dict[str, object]]]:
    """Return the answers, and the error rows."""
    Job(options, RunOptions(**run_options), Settings()).run(Event())  # type: ignore[arg-type]
    errors = Path(options.output) / "_inferd/errors.jsonl"
    lines = errors.read_text().splitlines() if errors.exists() else []
    return pq.read_table(options.output), [json.loads(line) for line in lines]


def _pictures() -> dict[str, bytes]:
    """Return pictures of many sizes, one of which is damaged."""
    random = np.random.default_rng(5)
    found = {}
    for row in range(40):
        size = tuple(random.integers(4, 30, 2))
        buffer = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(buffer, ("PNG", "JPEG")[row % 2])
        found[f"{row:02}.{('png', 'jpg')[row % 2]}"] = buffer.getvalue()
    found["07.jpg"] = found["07.jpg"][:-20]
    return found


def _wanted(content: bytes) -> list[object]:
    image = Image.open(io.BytesIO(content)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    values = ((np.asarray(image) / 255 - 0.5) / 0.25).astype(np.float32).transpose(2, 0, 1)
    wanted: list[object] = values.tolist()
    return wanted


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_pictures_have_their_answers(tmp_path: Path, kind: str, workers: int) -> None:
    """Each picture of a folder or an archive has the model's answer to what Pillow makes of it; a damaged one none."""
    contents = _pictures()
    source = tmp_path / ("pictures.tar" if kind == "archive" else "pictures")
    if kind == "archive":
        with tarfile.open(source, "w") as archive:
            for name, content in contents.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    else:
        source.mkdir()
        for name, content in contents.items():
            (source / name).write_bytes(content)
    model = onnx_models.identity(BY_NAME["FP32"], ("batch", 3, SIDE, SIDE))
    options = JobOptions(
        model=str(onnx_models.save(model, tmp_path / "m.onnx")),
        inputs=(str(source),),
        output=str(tmp_path / "out"),
        join=("path",),
        image=ImageOptions(mean=(0.5,), std=(0.25,)),
        batch_rows=4,
        look_ahead=8,
        part_rows=16,
    )
    table, errors = _run(options, workers=workers)
    answers = dict(zip((Path(path).name for path in table["path"].to_pylist()), table["y"].to_pylist(), strict=True))
    assert answers == {name: _wanted(content) for name, content in contents.items() if name != "07.jpg"}
    [error] = errors
    assert (error["row"], error["code"]) == (7, "NOT_PREPARED")
    assert "07.jpg: the picture is damaged" in str(error["message"])


def test_texts_have_their_answers(tmp_path: Path) -> None:
    """Each text has the model's answer to its own tokens, whatever other lengths there are; null has none."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    texts = [" ".join("ab?"[(row + word) % 3] for word in range(row * 7 % 11 + 1)) for row in range(100)]
    table = pa.table({"text": [*texts[:50], None, *texts[50:]], "id": range(101)})
    pq.write_table(table, tmp_path / "texts.parquet")
    model = onnx_models.identity(BY_NAME["INT64"], ("batch", "tokens"))
    options = JobOptions(
        model=str(onnx_models.save(model, tmp_path / "m.onnx")),
        inputs=(str(tmp_path / "texts.parquet"),),
        output=str(tmp_path / "out"),
        join=("id",),
        tokenize=TokenizeOptions(file=str(tmp_path / "tokenizer.json")),
        batch_rows=8,
        look_ahead=32,
        part_rows=50,
    )
    answers, errors = _run(options, workers=1)
    assert answers["id"].to_pylist() == [row for row in range(101) if row != 50]
    assert answers["y"].to_pylist() == [tokenizer.encode(text).ids for text in texts]
    assert [(error["row"], error["message"]) for error in errors] == [(50, "expected a text, got null")]


class _Deadly:
    """Gives the length of a text, unless that ends the process."""

    def __init__(self) -> None:
        self.column = "text"
        self.inputs: tuple[str, ...] = ("x",)
        self.identity: Mapping[str, str] = {}

    def __call__(self, column: pa.Array) -> tuple[dict[str, ColumnTensor], BadRows]:
        texts = column.to_pylist()
        if "die" in texts:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"x": Dense(np.array([[len(text)] * 2 for text in texts], np.float32).reshape(-1, 2))}, {}


def test_row_that_ends_worker_costs_itself_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that ends the process that prepares it is an error, also the first one, which the plan is made with."""
    monkeypatch.setattr(setup, "preparation_for", lambda *_: _Deadly())
    texts = ["die", *("a" * (row % 5) for row in range(20))]
    pq.write_table(pa.table({"text": texts, "id": range(len(texts))}), tmp_path / "texts.parquet")
    model = onnx_models.identity(BY_NAME["FP32"], ("batch", 2))
    options = JobOptions(
        model=str(onnx_models.save(model, tmp_path / "m.onnx")),
        inputs=(str(tmp_path / "texts.parquet"),),
        output=str(tmp_path / "out"),
        join=("id",),
        batch_rows=8,
    )
    answers, errors = _run(options, workers=1)
    [error] = errors
    assert error["row"] == 0
    assert "was ended by SIGKILL" in str(error["message"])
    assert answers["id"].to_pylist() == list(range(1, len(texts)))
    assert answers["y"].to_pylist() == [[len(text)] * 2 for text in texts[1:]]

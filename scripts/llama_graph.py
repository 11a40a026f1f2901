"""Build decoders of Llama's architecture as ONNX graphs, in the form that onnxruntime-genai's builder writes.

Inputs are ``input_ids`` and ``attention_mask``, with ``position_ids`` if wanted, and ``past_key_values.N.key`` and
``.value``; outputs are ``logits`` and ``present.N.key`` and ``.value``. Attention is GroupQueryAttention, which writes
new keys and values into the memory of the old ones if both are bound to it.

Needs the extra ``train``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

#: Operators that are ONNX Runtime's own.
_OWN = "com.microsoft"

#: Weights that share a scale, in int8.
_BLOCK = 64

Array = NDArray[np.float32]

WeightType = Literal["fp32", "int8"]

#: By name: embed [vocabulary,width], norm [width] and, for each layer N, N.q, N.k, N.v, N.o, N.gate, N.up and N.down
#: [outputs,inputs], N.attention_norm and N.mlp_norm [width]. The embedding is the vocabulary projection too.
Weights = Mapping[str, Array]


@dataclass(frozen=True, kw_only=True, slots=True)
class LlamaShape:
    """The sizes of a model of Llama's architecture."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    context: int
    rope_theta: float = 10_000.0
    epsilon: float = 1e-5


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphForm:
    """How the graph is written.

    ``weights``: int8 is MatMulNBits in blocks of 64, with int8 activations. ``element``: the type of activations and
    cache. ``pruned``: logits of the last token only. ``position_ids``: an input, with separate RotaryEmbedding.
    """

    weights: WeightType = "fp32"
    element: Literal["fp32", "fp16"] = "fp32"
    pruned: bool = False
    position_ids: bool = False


def llama_graph(weights: Weights, shape: LlamaShape, form: GraphForm) -> onnx.ModelProto:
    """Return the decoder."""
    net = _Net(weights, shape, form)
    residual = net.op("Gather", net.constant("embed", weights["embed"]), "input_ids")
    normed = net.op(
        "SimplifiedLayerNormalization", residual, net.vector("0.attention_norm"), axis=-1, epsilon=shape.epsilon
    )
    mask = _mask_lengths(net)
    for layer in range(shape.layers):
        attended = _attention(net, layer, normed, mask)
        normed, residual = net.skip_norm(residual, attended, f"{layer}.mlp_norm")
        is_last = layer == shape.layers - 1
        next_norm = "norm" if is_last else f"{layer + 1}.attention_norm"
        normed, residual = net.skip_norm(residual, _mlp(net, layer, normed), next_norm, is_last=is_last)
    if form.pruned:
        normed = net.op("Gather", normed, net.ints("last_token", [-1]), axis=1)
    net.vocabulary_projection(normed)
    return net.model()


class _Net:
    """Collects nodes and constants; each operation returns the name of its output."""

    def __init__(self, weights: Weights, shape: LlamaShape, form: GraphForm) -> None:
        self.weights = weights
        self.shape = shape
        self.form = form
        self._dtype = np.float16 if form.element == "fp16" else np.float32
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def op(self, operator: str, *inputs: str, output: str = "", **attributes: object) -> str:
        return self.node(operator, inputs, [output or f"{operator}_{len(self._nodes)}"], **attributes)

    def node(self, operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: object) -> str:
        name = f"{operator}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), list(outputs), name=name, **attributes))  # type: ignore[arg-type]  # its keywords before them are of other types
        return outputs[0]

    def constant(self, name: str, value: Array) -> str:
        return self._constant(name, value.astype(self._dtype))

    def vector(self, name: str) -> str:
        return self.constant(name, self.weights[name])

    def ints(self, name: str, values: Sequence[int]) -> str:
        return self._constant(name, np.array(values, np.int64))

    def linear(self, value: str, *names: str) -> str:
        """Return the product of ``value`` with the named weights, beside each other."""
        weight = np.concatenate([self.weights[name] for name in names])
        name = "+".join(names)
        if self.form.weights == "int8":
            return self._quantized(value, name, weight)
        return self.op("MatMul", value, self.constant(name, np.ascontiguousarray(weight.T)))

    def vocabulary_projection(self, value: str) -> None:
        if self.form.weights == "int8":
            self._quantized(value, "head", self.weights["embed"], output="logits")
        else:
            # With the embedding as it is, so that the file has it once.
            self.op("FusedMatMul", value, "embed", output="logits", domain=_OWN, transB=1)

    def skip_norm(self, residual: str, value: str, name: str, *, is_last: bool = False) -> tuple[str, str]:
        """Return the normalized sum and the sum itself, which is "" if ``is_last``."""
        count = len(self._nodes)
        outputs = [f"normed_{count}"] if is_last else [f"normed_{count}", "", "", f"residual_{count}"]
        inputs = [residual, value, self.vector(name)]
        self.node("SkipSimplifiedLayerNormalization", inputs, outputs, domain=_OWN, epsilon=self.shape.epsilon)
        return outputs[0], "" if is_last else outputs[3]

    def model(self) -> onnx.ModelProto:
        inputs, outputs = self._signature()
        made = helper.make_graph(self._nodes, "decoder", inputs, outputs, list(self._constants.values()))
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid(_OWN, 1)]
        return helper.make_model(made, opset_imports=opsets, ir_version=10, producer_name="inferd")

    def _quantized(self, value: str, name: str, weight: Array, output: str = "") -> str:
        blocks = weight.reshape(weight.shape[0], -1, _BLOCK)
        scales = np.abs(blocks).max(-1) / 127
        scales[scales == 0] = 1
        # The zero point is 128 where none is given.
        levels = (np.clip(np.rint(blocks / scales[..., None]), -127, 127) + 128).astype(np.uint8)
        parts = [self._constant(f"{name}.levels", levels), self.constant(f"{name}.scales", scales.reshape(-1))]
        outputs, inputs = weight.shape
        return self.op(
            "MatMulNBits",
            value,
            *parts,
            output=output,
            domain=_OWN,
            K=inputs,
            N=outputs,
            bits=8,
            block_size=_BLOCK,
            accuracy_level=4,
        )

    def _constant(self, name: str, value: NDArray[np.generic]) -> str:
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(value, name)
        return name

    def _signature(self) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
        def info(name: str, element: int, dims: Sequence[int | str]) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, element, dims)

        integer, real = TensorProto.INT64, helper.np_dtype_to_tensor_dtype(np.dtype(self._dtype))
        tokens = ["batch_size", "sequence_length"]
        inputs = [info("input_ids", integer, tokens)]
        inputs.append(info("attention_mask", integer, ["batch_size", "total_sequence_length"]))
        if self.form.position_ids:
            inputs.append(info("position_ids", integer, tokens))
        outputs = [info("logits", real, ["batch_size", 1 if self.form.pruned else tokens[1], self.shape.vocabulary])]
        for layer in range(self.shape.layers):
            for part in ("key", "value"):
                past: list[int | str] = ["batch_size", self.shape.kv_heads, "past_length", self.shape.head_size]
                present: list[int | str] = ["batch_size", self.shape.kv_heads, "present_length", self.shape.head_size]
                inputs.append(info(f"past_key_values.{layer}.{part}", real, past))
                outputs.append(info(f"present.{layer}.{part}", real, present))
        return inputs, outputs


def _mask_lengths(net: _Net) -> tuple[str, str]:
    """Return the tokens of each sequence without the last one, and the most of any."""
    tokens = net.op("ReduceSum", "attention_mask", net.ints("axis_1", [1]), keepdims=0)
    before = net.op("Cast", net.op("Sub", tokens, net.ints("one", [1])), to=TensorProto.INT32)
    longest = net.op("Gather", net.op("Shape", "attention_mask"), net.ints("index_1", [1]))
    total = net.op("Squeeze", longest, net.ints("axis_0", [0]))
    return before, net.op("Cast", total, to=TensorProto.INT32)


def _attention(net: _Net, layer: int, value: str, lengths: tuple[str, str]) -> str:
    names = [f"{layer}.{part}" for part in "qkv"]
    tables = _rotary_tables(net)
    if net.form.position_ids:
        query, key, values = (net.linear(value, name) for name in names)
        attended = [
            _rotated(net, query, net.shape.heads, tables),
            _rotated(net, key, net.shape.kv_heads, tables),
            values,
        ]
        tables = []
    else:
        attended = [net.linear(value, *names), "", ""]
    past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
    joined = net.node(
        "GroupQueryAttention",
        [*attended, *past, *lengths, *tables],
        [f"attended_{layer}", f"present.{layer}.key", f"present.{layer}.value"],
        domain=_OWN,
        num_heads=net.shape.heads,
        kv_num_heads=net.shape.kv_heads,
        do_rotary=int(bool(tables)),
    )
    return net.linear(joined, f"{layer}.o")


def _rotated(net: _Net, value: str, heads: int, tables: Sequence[str]) -> str:
    return net.op("RotaryEmbedding", value, "position_ids", *tables, domain=_OWN, num_heads=heads)


def _rotary_tables(net: _Net) -> list[str]:
    shape = net.shape
    frequencies = 1.0 / shape.rope_theta ** (np.arange(0, shape.head_size, 2) / shape.head_size)
    angles = np.outer(np.arange(shape.context), frequencies).astype(np.float32)
    return [net.constant("cosines", np.cos(angles)), net.constant("sines", np.sin(angles))]


def _mlp(net: _Net, layer: int, value: str) -> str:
    gate = net.linear(value, f"{layer}.gate")
    activated = net.op("Mul", gate, net.op("Sigmoid", gate))
    return net.linear(net.op("Mul", activated, net.linear(value, f"{layer}.up")), f"{layer}.down")

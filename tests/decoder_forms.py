"""Edits of the tiny language model to other forms, which inferd serves or refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: Other names for its inputs and outputs.
_NAMES = {
    "input_ids": "tokens",
    "attention_mask": "mask",
    "logits": "scores",
    "past_key_values.": "old.",
    "present.": "new.",
}


def change(path: Path, edit: Callable[[onnx.ModelProto], object]) -> None:
    """Apply ``edit`` to the model in ``path``."""
    model = onnx.load(path)
    edit(model)
    onnx.save(model, path)


def add_input(path: Path, name: str, element: int = TensorProto.FLOAT, dims: tuple[Any, ...] = ("batch_size",)) -> None:
    """Add an input that nothing uses."""
    change(path, lambda model: model.graph.input.append(helper.make_tensor_value_info(name, element, dims)))


def flatten_head(path: Path) -> None:
    """Let the vocabulary projection be a Gemm of all tokens in one list."""

    def edit(model: onnx.ModelProto) -> None:
        (head,) = [node for node in model.graph.node if "logits" in node.output]
        width, vocabulary = (model.graph.initializer[0].dims[index] for index in (1, 0))
        model.graph.initializer.append(numpy_helper.from_array(np.array([-1, width]), "flat"))
        model.graph.initializer.append(numpy_helper.from_array(np.array([vocabulary]), "vocabulary"))
        model.graph.node.remove(head)
        model.graph.node.extend(
            [
                helper.make_node("Reshape", [head.input[0], "flat"], ["flat_activations"]),
                helper.make_node("Gemm", ["flat_activations", head.input[1]], ["flat_logits"], transB=1),
                helper.make_node("Shape", ["input_ids"], ["tokens"]),
                helper.make_node("Concat", ["tokens", "vocabulary"], ["dims"], axis=0),
                helper.make_node("Reshape", ["flat_logits", "dims"], ["logits"]),
            ]
        )

    change(path, edit)


def declare_projection(path: Path) -> None:
    """Let a cast make the logits, and declare its input with all tokens, as genai's builder does."""

    def edit(model: onnx.ModelProto) -> None:
        (head,) = [node for node in model.graph.node if "logits" in node.output]
        head.output[0] = "projected"
        model.graph.node.append(helper.make_node("Cast", ["projected"], ["logits"], to=TensorProto.FLOAT))
        (logits,) = [value for value in model.graph.output if value.name == "logits"]
        declared = model.graph.value_info.add()
        declared.CopyFrom(logits)
        declared.name = "projected"

    change(path, edit)


def use_int32(path: Path) -> None:
    """Let token ids and mask be INT32."""

    def edit(model: onnx.ModelProto) -> None:
        for name in ("input_ids", "attention_mask"):
            (value,) = [value for value in model.graph.input if value.name == name]
            value.type.tensor_type.elem_type = TensorProto.INT32
            for node in model.graph.node:
                node.input[:] = [f"{name}_64" if used == name else used for used in node.input]
            model.graph.node.insert(0, helper.make_node("Cast", [name], [f"{name}_64"], to=TensorProto.INT64))

    change(path, edit)


def keep_some_logits(path: Path) -> None:
    """Add an input for the number of last tokens with logits, as exports for transformers.js have."""

    def edit(model: onnx.ModelProto) -> None:
        (head,) = [node for node in model.graph.node if "logits" in node.output]
        for name, value in (("axis_0_list", [0]), ("the_end", [2**31 - 1]), ("tokens_axis", [1])):
            model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
        model.graph.input.append(helper.make_tensor_value_info("num_logits_to_keep", TensorProto.INT64, []))
        nodes = [
            helper.make_node("Neg", ["num_logits_to_keep"], ["from_end"]),
            helper.make_node("Unsqueeze", ["from_end", "axis_0_list"], ["starts"]),
            helper.make_node("Slice", [head.input[0], "starts", "the_end", "tokens_axis"], ["kept"]),
        ]
        head.input[0] = "kept"
        last = list(model.graph.node).index(head)
        for offset, node in enumerate(nodes):
            model.graph.node.insert(last + offset, node)

    change(path, edit)


def rename(path: Path) -> None:
    """Give inputs and outputs other names, and say so in ``genai_config.json``."""

    def renamed(name: str) -> str:
        for old, new in _NAMES.items():
            if name.startswith(old):
                return new + name.removeprefix(old)
        return name

    def edit(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.input[:] = map(renamed, node.input)
            node.output[:] = map(renamed, node.output)
        for value in [*model.graph.input, *model.graph.output]:
            value.name = renamed(value.name)

    change(path, edit)
    config_path = path.parent / "genai_config.json"
    config = json.loads(config_path.read_text())
    for part in ("inputs", "outputs"):
        names = config["model"]["decoder"][part]
        config["model"]["decoder"][part] = {key: renamed(name) for key, name in names.items()}
    config_path.write_text(json.dumps(config))

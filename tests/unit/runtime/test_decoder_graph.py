"""Which files are language models, which of them can be served, and the reasons for the others."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from inferd.runtime.decoder_graph import read_decoder
from inferd.runtime.errors import ModelLoadError
from tests import onnx_models
from tests.decoder_forms import add_input, change, flatten_head
from tests.decoder_models import CONTEXT, write_tiny_decoder


def _set_window(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "GroupQueryAttention")
    node.attribute.append(helper.make_attribute("local_window_size", 128))


def _use_plain_operators(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type == "GroupQueryAttention":
            node.op_type = "MultiHeadAttention"


def _share_cache(model: onnx.ModelProto) -> None:
    node = helper.make_node("Identity", ["present.0.key"], ["shared"])
    model.graph.node.append(node)


def _drop_input(name: str) -> Callable[[onnx.ModelProto], None]:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.input.remove(next(value for value in model.graph.input if value.name == name))

    return edit


def _drop_output(name: str) -> Callable[[onnx.ModelProto], None]:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.output.remove(next(value for value in model.graph.output if value.name == name))

    return edit


def _retype(name: str, element: int, dims: list[int | str]) -> Callable[[onnx.ModelProto], None]:
    def edit(model: onnx.ModelProto) -> None:
        value = next(value for value in model.graph.input if value.name == name)
        value.CopyFrom(helper.make_tensor_value_info(name, element, dims))

    return edit


def _branch(model: onnx.ModelProto) -> None:
    branch = helper.make_graph([], "branch", [], [])
    model.graph.node.append(helper.make_node("If", ["input_ids"], ["x"], "choice", then_branch=branch))


REFUSED = {
    "plain operators": (_use_plain_operators, "not read and written by GroupQueryAttention alone"),
    "shared cache": (_share_cache, "not read and written by GroupQueryAttention alone"),
    "sliding window": (_set_window, r"slides over the last 128 tokens \(local_window_size\)"),
    "branches": (_branch, 'If "choice", whose choice for one sequence would depend on those beside it'),
    "no mask": (_drop_input("attention_mask"), "no input attention_mask"),
    "no logits": (_drop_output("logits"), "no output logits"),
    "no present": (_drop_output("present.1.value"), r"no output present\.1\.value"),
    "int8 cache": (
        _retype("past_key_values.0.key", TensorProto.INT8, ["batch", 2, "past", 16]),
        r'"past_key_values\.0\.key" is of INT8, expected FP32 or FP16',
    ),
    "fp16 beside fp32": (
        _retype("past_key_values.0.key", TensorProto.FLOAT16, ["batch", 2, "past", 16]),
        "several element types",
    ),
    "float ids": (_retype("input_ids", TensorProto.FLOAT, ["batch", "tokens"]), "expected INT64 or INT32"),
    "embeddings": (
        _retype("input_ids", TensorProto.INT64, ["batch", "tokens", "width"]),
        'input "input_ids" has 3 dims, expected 2',
    ),
    "unknown heads": (
        _retype("past_key_values.0.key", TensorProto.FLOAT, ["batch", "heads", "past", 16]),
        "no number of heads",
    ),
}


@pytest.mark.parametrize("what", list(REFUSED))
def test_refuses_other_decoders(what, tmp_path):
    """The load error says in one sentence why a decoder cannot be served."""
    path = write_tiny_decoder(tmp_path, tokenizer=False)
    edit, reason = REFUSED[what]
    change(path, edit)
    with pytest.raises(ModelLoadError, match=r"model\.onnx is a language model that cannot be served: .*" + reason):
        read_decoder(path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("encoder_hidden_states", "a pair of encoder and decoder"),
        ("past_key_values.0.encoder.key", "a pair of encoder and decoder"),
        ("inputs_embeds", "takes embeddings in place of token ids"),
        ("past_conv.0", "a state of convolutions"),
        ("past_key_values.1.recurrent_state", "a recurrent state"),
        ("past_key_values.1.ssm", "a recurrent state"),
        ("cache_indirection", "not known how to fill it"),
    ],
)
def test_refuses_inputs_that_it_cannot_fill(name, reason, tmp_path):
    """Inputs of encoders, embeddings, and states other than keys and values."""
    path = write_tiny_decoder(tmp_path, tokenizer=False)
    add_input(path, name)
    with pytest.raises(ModelLoadError, match=f'cannot be served: input "{name}": .*{reason}'):
        read_decoder(path)


def test_refuses_a_configuration_of_a_model_without_a_cache(tmp_path):
    """With genai_config.json a model is a language model, and one without caches cannot be served."""
    write_tiny_decoder(tmp_path, tokenizer=False)
    path = onnx_models.save(onnx_models.linear(), tmp_path / "other.onnx")
    with pytest.raises(ModelLoadError, match=r'other\.onnx is a language model that cannot be served: input "x"'):
        read_decoder(path)


def test_ordinary_models_have_no_form(tmp_path):
    """Other configuration files beside a model do not make it a language model."""
    (tmp_path / "config.json").write_text("not JSON")
    assert read_decoder(onnx_models.save(onnx_models.linear(), tmp_path / "model.onnx")) is None


@pytest.mark.parametrize(
    ("options", "projection", "logits_of_all", "has_position_ids", "bytes_per_token"),
    [
        ({}, "logits", True, False, 512),
        ({"weights": "int8", "layers": 3}, "logits", True, False, 768),
        ({"pruned": True}, None, False, False, 512),
        ({"position_ids": True, "dtype": "fp16"}, "logits", True, True, 256),
        ({"external_weights": True}, "logits", True, False, 512),
    ],
)
def test_reads_the_form(options, projection, logits_of_all, has_position_ids, bytes_per_token, tmp_path):
    """The form follows from the graph, and weights are not read."""
    path = write_tiny_decoder(tmp_path, tokenizer=False, **options)
    form = read_decoder(path)
    assert form is not None
    assert (form.projection, form.logits_of_all) == (projection, logits_of_all)
    assert form.has_position_ids == has_position_ids
    assert form.cache_bytes_per_token == bytes_per_token
    assert form.context_length == CONTEXT
    assert not form.mixes_rows
    assert [cache.past for cache in form.caches[:2]] == ["past_key_values.0.key", "past_key_values.0.value"]


def test_reads_configuration_above_the_version(tmp_path):
    """genai_config.json may be in the directory above that of the version."""
    path = write_tiny_decoder(tmp_path / "1", tokenizer=False)
    (tmp_path / "1" / "genai_config.json").rename(tmp_path / "genai_config.json")
    form = read_decoder(path)
    assert form is not None
    assert form.config.end_token_ids == (1,)


def test_context_length_of_the_rotary_table(tmp_path):
    """It is used if no configuration has the context length."""
    form = read_decoder(write_tiny_decoder(tmp_path, tokenizer=False, genai_config=False, context=192))
    assert form is not None
    assert form.context_length == 192


def test_tokens_are_not_picked_before_a_projection_of_another_shape(tmp_path):
    """A Gemm has the activations of all tokens of all sequences in one dimension."""
    path = write_tiny_decoder(tmp_path, tokenizer=False)
    flatten_head(path)
    form = read_decoder(path)
    assert form is not None
    assert form.projection is None


@pytest.mark.parametrize("operators", [["Add"], ["Cast"], ["Div", "Tanh", "Mul"]])
def test_tokens_are_picked_before_elementwise_operators(operators, tmp_path):
    """A bias, a cast or a soft cap may follow the projection."""
    path = write_tiny_decoder(tmp_path, tokenizer=False)

    def edit(model: onnx.ModelProto) -> None:
        head = model.graph.node[-1]
        head.output[0] = name = "projected"
        model.graph.initializer.append(helper.make_tensor("thirty", TensorProto.FLOAT, [1], [30.0]))
        for index, operator in enumerate(operators):
            inputs = [name] if operator in {"Cast", "Tanh"} else [name, "thirty"]
            name = "logits" if index == len(operators) - 1 else f"step_{index}"
            attributes = {"to": TensorProto.FLOAT} if operator == "Cast" else {}
            model.graph.node.append(helper.make_node(operator, inputs, [name], **attributes))

    change(path, edit)
    form = read_decoder(path)
    assert form is not None
    assert form.projection == "projected"


def test_rejects_damaged_file(tmp_path):
    """A file that is not ONNX is a load error, as for ordinary models."""
    path = Path(tmp_path / "model.onnx")
    path.write_bytes(b"\xff\xff")
    with pytest.raises(ModelLoadError, match="not an ONNX file"):
        read_decoder(path)

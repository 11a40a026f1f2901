"""A tiny language model, random but always the same one, in the form that onnxruntime-genai's builder writes."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from scripts.llama_graph import Array, GraphForm, LlamaShape, llama_graph

#: The special tokens of its tokenizer: what begins a message, and what ends one and every answer.
BEGIN_TOKEN, END_TOKEN = "<|im_start|>", "<|im_end|>"
BEGIN_ID, END_ID = 0, 1

VOCABULARY = 384
CONTEXT = 256

_SEED = 19

#: Merges are learned from it; it has characters of two, three and four bytes.
_TEXTS = [
    "The capital of France is Paris. The quick brown fox jumps over the lazy dog.",
    "What is the capital of France? Once upon a time there was a small language model.",
    "Grüße aus Köln und Paris, 日本語のテキスト, und ein 😀.",
]

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_tiny_decoder(
    folder: Path,
    *,
    weights: Literal["fp32", "int8"] = "fp32",
    dtype: Literal["fp32", "fp16"] = "fp32",
    layers: int = 2,
    vocabulary: int = VOCABULARY,
    context: int = CONTEXT,
    pruned: bool = False,
    position_ids: bool = False,
    external_weights: bool = False,
    tokenizer: bool = True,
    genai_config: bool = True,
    end_ids: tuple[int, ...] = (END_ID,),
) -> Path:
    """Write the model into ``folder``; return the path of its ``model.onnx``.

    About 1 MB. Greedy answers differ from prompt to prompt and seldom end early. ``vocabulary`` has at least 300 tokens
    if there is a ``tokenizer``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shape = LlamaShape(
        layers=layers, width=64, heads=4, kv_heads=2, head_size=16, vocabulary=vocabulary, context=context
    )
    form = GraphForm(weights=weights, element=dtype, pruned=pruned, position_ids=position_ids)
    path = folder / "model.onnx"
    model = llama_graph(_random_weights(shape), shape, form)
    if external_weights:
        onnx.save(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=1024)
    else:
        onnx.save(model, path)
    if genai_config:
        write_genai_config(folder, shape, position_ids=position_ids, end_ids=end_ids)
    if tokenizer:
        write_tokenizer(folder, vocabulary)
    return path


def write_genai_config(
    folder: Path, shape: LlamaShape, *, position_ids: bool = False, end_ids: tuple[int, ...] = (END_ID,)
) -> None:
    """Write ``genai_config.json`` for a model of ``shape``."""
    inputs = {"input_ids": "input_ids", "attention_mask": "attention_mask"}
    if position_ids:
        inputs["position_ids"] = "position_ids"
    decoder = {
        "session_options": {"provider_options": []},
        "filename": "model.onnx",
        "head_size": shape.head_size,
        "hidden_size": shape.width,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "num_hidden_layers": shape.layers,
        "inputs": inputs | {"past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value"},
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }
    config = {
        "model": {
            "type": "llama",
            "bos_token_id": BEGIN_ID,
            "eos_token_id": end_ids[0] if len(end_ids) == 1 else list(end_ids),
            "pad_token_id": END_ID,
            "vocab_size": shape.vocabulary,
            "context_length": shape.context,
            "decoder": decoder,
        },
        "search": {"do_sample": False, "max_length": shape.context, "temperature": 1.0, "top_k": 50, "top_p": 1.0},
    }
    (folder / "genai_config.json").write_text(json.dumps(config, indent=1))


def write_tokenizer(folder: Path, vocabulary: int = VOCABULARY) -> None:
    """Write ``tokenizer.json``, byte-level BPE, and ``tokenizer_config.json`` with a chat template."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in (BEGIN_TOKEN, END_TOKEN)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Several times, so that there are pairs to merge for every size of vocabulary.
    made.train_from_iterator(_TEXTS * 3, trainer)
    made.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "GPT2Tokenizer",
        "bos_token": BEGIN_TOKEN,
        "eos_token": END_TOKEN,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))


def _random_weights(shape: LlamaShape) -> dict[str, Array]:
    random = np.random.default_rng(_SEED)

    def matrix(outputs: int, inputs: int, gain: float = 1.5) -> Array:
        return (random.standard_normal((outputs, inputs)) * gain / inputs**0.5).astype(np.float32)

    width, inner = shape.width, 2 * shape.width
    # Tied: a small embedding keeps a token from predicting itself forever.
    weights = {"embed": matrix(shape.vocabulary, width, 1.0), "norm": np.ones(width, np.float32)}
    for layer in range(shape.layers):
        sizes = {
            "q": (shape.heads * shape.head_size, width),
            "k": (shape.kv_heads * shape.head_size, width),
            "v": (shape.kv_heads * shape.head_size, width),
            "o": (width, shape.heads * shape.head_size),
            "gate": (inner, width),
            "up": (inner, width),
            "down": (width, inner),
        }
        weights |= {f"{layer}.{name}": matrix(*size) for name, size in sizes.items()}
        weights |= {f"{layer}.{name}": np.ones(width, np.float32) for name in ("attention_norm", "mlp_norm")}
    return weights

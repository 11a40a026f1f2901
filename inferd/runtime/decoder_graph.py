"""Recognise language models by their graphs: decoders whose KV cache GroupQueryAttention writes in place.

onnxruntime-genai's builder writes such graphs: token ids and an attention mask in, logits out, and for each layer keys
and values in and out. Other decoders are refused, with what is missing. Weights are not read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inferd.dtypes import ALL
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.genai_config import GenaiConfig, TensorNames, is_described, read_genai_config
from inferd.runtime.onnx_file import Graph, ModelFile, Node, TensorType, read_model_file

#: A scalar input of exports for transformers.js: how many of the last tokens get logits.
LOGITS_TO_KEEP = "num_logits_to_keep"

_ATTENTION = "GroupQueryAttention"
#: Indices of its past key, which its past value follows, its present key, and its table of rotary cosines.
_PAST, _PRESENT, _COSINES = 3, 1, 7

#: Tested types of the cache, and types of the other inputs.
_CACHE_TYPES = ("FP32", "FP16")
_INTEGER_TYPES = ("INT64", "INT32")

#: Operators that take a maximum over all rows of a batch.
_MIX_ROWS = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"})
_BRANCHES = frozenset({"If", "Loop", "Scan"})

#: Operators between the vocabulary projection and the logits that treat each element alone.
_ELEMENTWISE = frozenset({"Add", "Cast", "Clip", "Div", "Identity", "Mul", "Sub", "Tanh"})
#: Vocabulary projections of [batch,sequence,width], whose first input are the activations.
_PROJECTIONS = frozenset({"MatMul", "MatMulNBits", "FusedMatMul"})

_TYPES = {datatype.onnx_element_type: datatype for datatype in ALL}

#: Parts of input names of unsupported decoders, with the reason for the refusal.
_FOREIGN_INPUTS: Mapping[str, str] = {
    "encoder": "it is the decoder of a pair of encoder and decoder",
    "cross": "it is the decoder of a pair of encoder and decoder",
    "inputs_embeds": "it takes embeddings in place of token ids",
    "conv": "it has a state of convolutions, not only keys and values",
    "recurrent": "it has a recurrent state, not only keys and values",
    "ssm": "it has a recurrent state, not only keys and values",
    "past_state": "it has a recurrent state, not only keys and values",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheTensor:
    """The keys or the values of one layer: [sequences, heads, tokens, size]."""

    past: str
    present: str
    heads: int
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderForm:
    """The inputs and outputs of a decoder, and what its graph computes.

    ``integer`` and ``element`` are the types of token ids and cache. ``logits_of_all``: it computes logits of all
    tokens; then ``projection`` is the output of the node that projects to the vocabulary, if tokens can be picked
    before it. ``mixes_rows``: the result of a sequence depends on others in the run, so that each has to run alone.
    """

    config: GenaiConfig
    file: ModelFile
    caches: Sequence[CacheTensor]
    integer: np.dtype[np.generic]
    element: np.dtype[np.generic]
    has_position_ids: bool
    has_logits_to_keep: bool
    projection: str | None
    logits_of_all: bool
    mixes_rows: bool
    context_length: int | None

    @property
    def cache_bytes_per_token(self) -> int:
        """Bytes of keys and values of one token."""
        return sum(cache.heads * cache.size for cache in self.caches) * self.element.itemsize


def read_decoder(path: Path) -> DecoderForm | None:
    """Return the form of the language model in the file ``path``; None if it is an ordinary model.

    Raises `ModelLoadError` for files that are not ONNX, and for language models that cannot be served.
    """
    return decoder_form(path, read_model_file(path))


def decoder_form(path: Path, file: ModelFile) -> DecoderForm | None:
    """Do the same for ``file``, which was read from ``path``."""
    graph = file.graph
    if not is_described(path) and not any(name.startswith("past_key_values.") for name in graph.inputs):
        return None
    config = read_genai_config(path)
    try:
        return _form(config, file)
    except _RefusedError as refused:
        msg = f"{path.name} is a language model that cannot be served: {refused}"
        raise ModelLoadError(msg) from None


class _RefusedError(Exception):
    """A language model cannot be served; the text says why."""


def _form(config: GenaiConfig, file: ModelFile) -> DecoderForm:
    graph, names = file.graph, config.names
    layers = _layers(graph, names)
    _check_inputs(graph, names, layers)
    attentions = [node for node in graph.nodes if node.operator == _ATTENTION]
    _check_attention(graph, attentions, layers)
    branch = next((node for node in graph.nodes if node.operator in _BRANCHES), None)
    if branch is not None:
        msg = f"it has {branch}, whose choice for one sequence would depend on those beside it"
        raise _RefusedError(msg)
    logits_of_all = not _has_last_token_only(graph, names.logits)
    return DecoderForm(
        config=config,
        file=file,
        caches=[_cache_tensor(graph, past, present) for past, present in layers.items()],
        integer=_numpy_type(graph, names.input_ids, _INTEGER_TYPES),
        element=_common_type(graph, list(layers)),
        has_position_ids=names.position_ids in graph.inputs,
        has_logits_to_keep=LOGITS_TO_KEEP in graph.inputs,
        projection=_projection(graph, names.logits) if logits_of_all else None,
        logits_of_all=logits_of_all,
        mixes_rows=any(node.operator in _MIX_ROWS for node in graph.nodes),
        context_length=config.context_length or _table_length(graph, attentions),
    )


def _layers(graph: Graph, names: TensorNames) -> dict[str, str]:
    """Return the present outputs by their past inputs, in the order of layers, keys before values."""
    found: dict[str, str] = {}
    for layer in range(len(graph.inputs)):
        for past, present in ((names.past_key, names.present_key), (names.past_value, names.present_value)):
            if _numbered(past, layer) in graph.inputs:
                found[_numbered(past, layer)] = _numbered(present, layer)
    missing = [present for present in found.values() if present not in graph.outputs]
    if missing:
        msg = f"it has no output {missing[0]}"
        raise _RefusedError(msg)
    return found


def _numbered(template: str, layer: int) -> str:
    return template.replace("%d", str(layer))


def _check_inputs(graph: Graph, names: TensorNames, layers: Mapping[str, str]) -> None:
    """Refuse a model with unknown inputs, or without required ones."""
    required = {names.input_ids: 2, names.attention_mask: 2}
    known = required | {names.position_ids: 2, LOGITS_TO_KEEP: 0} | dict.fromkeys(layers, 4)
    # Initializers may be inputs too, with a default.
    for name in [name for name in graph.inputs if name not in known and name not in graph.constants]:
        reason = next((why for part, why in _FOREIGN_INPUTS.items() if part in name), "it is not known how to fill it")
        msg = f'input "{name}": {reason}'
        raise _RefusedError(msg)
    if not layers:
        msg = f"it has no input {_numbered(names.past_key, 0)}"
        raise _RefusedError(msg)
    for name in (*required, names.logits):
        if name not in graph.types:
            msg = f"it has no {'output' if name == names.logits else 'input'} {name}"
            raise _RefusedError(msg)
    for name in known.keys() & graph.types.keys():
        dims = graph.types[name].dims
        if dims is not None and len(dims) != known[name]:
            msg = f'input "{name}" has {len(dims)} dims, expected {known[name]}'
            raise _RefusedError(msg)


def _check_attention(graph: Graph, attentions: Sequence[Node], layers: Mapping[str, str]) -> None:
    """Refuse a model unless GroupQueryAttention over all tokens writes all its caches in place."""
    writers = {past: present for node in attentions for past, present in _written(node)}
    users = {name for node in graph.nodes if node.operator != _ATTENTION for name in node.inputs}
    for past, present in layers.items():
        if writers.get(past) != present or past in users or present in users:
            msg = (
                f'"{past}" is not read and written by {_ATTENTION} alone, which keeps the cache in place; '
                f"onnxruntime-genai's builder writes such models"
            )
            raise _RefusedError(msg)
    for node in attentions:
        window = node.attributes.get("local_window_size", -1)
        if isinstance(window, int) and window > 0:
            msg = f"its attention slides over the last {window} tokens (local_window_size)"
            raise _RefusedError(msg)


def _written(node: Node) -> Iterator[tuple[str, str]]:
    return zip(node.inputs[_PAST : _PAST + 2], node.outputs[_PRESENT : _PRESENT + 2], strict=False)


def _cache_tensor(graph: Graph, past: str, present: str) -> CacheTensor:
    dims = graph.types[past].dims
    # `_check_inputs` has checked that there are four.
    heads, size = (dims[1], dims[3]) if dims is not None else ("", "")
    if not isinstance(heads, int) or not isinstance(size, int):
        msg = f'input "{past}" declares no number of heads or no size of a head'
        raise _RefusedError(msg)
    return CacheTensor(past=past, present=present, heads=heads, size=size)


def _common_type(graph: Graph, names: Sequence[str]) -> np.dtype[np.generic]:
    found = [_numpy_type(graph, name, _CACHE_TYPES) for name in names]
    if len(set(found)) > 1:
        msg = "its caches are of several element types"
        raise _RefusedError(msg)
    return found[0]


def _numpy_type(graph: Graph, name: str, allowed: Sequence[str]) -> np.dtype[np.generic]:
    declared = _TYPES.get(graph.types.get(name, TensorType()).element)
    if declared is None or declared.name not in allowed:
        got = "an unknown type" if declared is None else declared.name
        msg = f'"{name}" is of {got}, expected {" or ".join(allowed)}'
        raise _RefusedError(msg)
    return declared.numpy


def _has_last_token_only(graph: Graph, logits: str) -> bool:
    """Return whether the graph computes logits of the last token only."""
    dims = graph.types[logits].dims
    return LOGITS_TO_KEEP in graph.inputs or (dims is not None and (len(dims) < 3 or dims[1] == 1))


def _projection(graph: Graph, logits: str) -> str | None:
    """Return the output of the node that projects to the vocabulary, if only elementwise operators follow it."""
    makers = {output: node for node in graph.nodes for output in node.outputs if output}
    name = logits
    while (node := makers.get(name)) is not None and len(node.outputs) == 1:
        if node.operator in _PROJECTIONS and node.attributes.get("transA", 0) == 0:
            return None if node.inputs[0] in graph.constants else name
        # An elementwise operator has one computed input; the others, such as a bias, are constants.
        computed = [each for each in node.inputs if each in makers and makers[each].operator != "Constant"]
        if node.operator not in _ELEMENTWISE or len(computed) != 1:
            return None
        name = computed[0]
    return None


def _table_length(graph: Graph, attentions: Sequence[Node]) -> int | None:
    """Return the number of positions in the table of rotary cosines; None without one."""
    for node in attentions:
        table = graph.constants.get(node.inputs[_COSINES]) if len(node.inputs) > _COSINES else None
        if table is not None and len(table.dims) == 2:  # [positions, size]
            return table.dims[0]
    return None

"""Edit the file of a language model so that it computes logits for chosen tokens only.

Most models compute logits for every token of a prompt, although only those of the last one are needed. That is about a
third of the prefill time of small models. The edited graph has a new input, by which a Gather picks the activations of
chosen tokens before the projection to the vocabulary.
"""

from inferd import wire
from inferd.runtime.onnx_wire import Content, Field, fields, integers, message, text

#: The new input: indices of the tokens that get logits, [chosen] of int64; negative ones count from the end.
CHOSEN_TOKENS = "inferd_chosen_tokens"
_ACTIVATIONS = "inferd_chosen_activations"

# Field numbers in onnx.proto: of ModelProto, GraphProto, NodeProto, ValueInfoProto, TypeProto and its Tensor.
_GRAPH = 7
_NODE, _INPUT, _OUTPUT, _VALUE_INFO = 1, 11, 12, 13
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OPERATOR, _NODE_ATTRIBUTE = 1, 2, 3, 4, 5
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TENSOR_TYPE = 1
_ELEMENT, _SHAPE = 1, 2
_DIM, _DIM_NAME = 1, 2

_INT64 = 7
_ATTRIBUTE_NAME, _ATTRIBUTE_INTEGER, _ATTRIBUTE_TYPE, _IS_INTEGER = 1, 3, 20, 2


def with_chosen_tokens(content: Content, projection: str, logits: str) -> bytes:
    """Return the ONNX file ``content`` with the additional input `CHOSEN_TOKENS`.

    ``logits`` is the name of the output of logits. ``projection`` is the output of the node that projects to the
    vocabulary, whose first input are the activations [batch,sequence,width]. Raises `ValueError` without that node.
    """
    return b"".join(
        message(_GRAPH, *_graph(content, part, projection, logits))
        if part.number == _GRAPH
        else bytes(content[part.begin : part.behind])
        for part in fields(content, 0, len(content))
    )


def _graph(content: Content, graph: Field, projection: str, logits: str) -> list[bytes]:
    """Return the fields of the edited graph."""
    parts: list[bytes] = []
    is_found = False
    for part in fields(content, graph.start, graph.end):
        if part.number == _NODE and _has(content, part, _NODE_OUTPUT, projection):
            parts += _nodes(content, part)
            is_found = True
        elif part.number == _OUTPUT and _has(content, part, _VALUE_NAME, logits):
            parts.append(_without_shape(content, part))
        # The declared shapes of intermediate values are those for all tokens.
        elif part.number != _VALUE_INFO:
            parts.append(bytes(content[part.begin : part.behind]))
    if not is_found:
        msg = f"no node computes {projection}"
        raise ValueError(msg)
    return [*parts, _new_input()]


def _has(content: Content, node: Field, number: int, name: str) -> bool:
    return any(part.number == number and text(content, part) == name for part in fields(content, node.start, node.end))


def _nodes(content: Content, projection: Field) -> list[bytes]:
    """Return a Gather, and the projection with its output as input."""
    kept: list[bytes] = []
    activations = ""
    for part in fields(content, projection.start, projection.end):
        if part.number == _NODE_INPUT and not activations:
            activations = text(content, part)
            kept.append(message(_NODE_INPUT, _ACTIVATIONS.encode()))
        else:
            kept.append(bytes(content[part.begin : part.behind]))
    axis = (
        message(_ATTRIBUTE_NAME, b"axis"),
        _integer(_ATTRIBUTE_INTEGER, 1),
        _integer(_ATTRIBUTE_TYPE, _IS_INTEGER),
    )
    gather = (
        message(_NODE_INPUT, activations.encode()),
        message(_NODE_INPUT, CHOSEN_TOKENS.encode()),
        message(_NODE_OUTPUT, _ACTIVATIONS.encode()),
        message(_NODE_NAME, _ACTIVATIONS.encode()),
        message(_NODE_OPERATOR, b"Gather"),
        message(_NODE_ATTRIBUTE, *axis),
    )
    return [message(_NODE, *gather), message(_NODE, *kept)]


def _without_shape(content: Content, output: Field) -> bytes:
    """Return the declaration of ``output`` with its element type, without its dims, which are those for all tokens."""
    name, element = b"", 0
    for part in fields(content, output.start, output.end):
        if part.number == _VALUE_NAME:
            name = bytes(content[part.start : part.end])
        elif part.number == _VALUE_TYPE:
            element = _element(content, part)
    return message(_OUTPUT, message(_VALUE_NAME, name), _type(_integer(_ELEMENT, element)))


def _element(content: Content, declared: Field) -> int:
    for kind in fields(content, declared.start, declared.end):
        for part in fields(content, kind.start, kind.end):
            if part.number == _ELEMENT:
                return integers(content, part)[0]
    return 0


def _new_input() -> bytes:
    shape = message(_SHAPE, message(_DIM, message(_DIM_NAME, CHOSEN_TOKENS.encode())))
    declared = _type(_integer(_ELEMENT, _INT64), shape)
    return message(_INPUT, message(_VALUE_NAME, CHOSEN_TOKENS.encode()), declared)


def _type(*parts: bytes) -> bytes:
    return message(_VALUE_TYPE, message(_TENSOR_TYPE, *parts))


def _integer(number: int, value: int) -> bytes:
    return wire.varint(wire.integer_tag(number)) + wire.varint(value)

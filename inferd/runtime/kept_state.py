"""Refuse models that keep something of a request in their session, for the answers to later requests.

Of ONNX Runtime's operators that is BatchNormalization in training mode. It writes the running statistics over its own
inputs, which are weights in the session, unless both are outputs of the model.
"""

from collections.abc import Iterator

from inferd.runtime.errors import ModelLoadError
from inferd.runtime.onnx_file import Graph, ModelFile, Node

#: The first version of ONNX in which an attribute decides, and not the number of outputs.
_WITH_TRAINING_MODE = 14

_OWN_DOMAINS = frozenset({"", "ai.onnx"})


def is_training(node: Node, opset: int) -> bool:
    """Return True if ``node``, a BatchNormalization, computes the statistics of what it normalizes."""
    if opset < _WITH_TRAINING_MODE:
        return any(node.outputs[1:])
    return node.attributes.get("training_mode", 0) == 1


def refuse_kept_state(file: ModelFile) -> None:
    """Raise `ModelLoadError` if answers of the model would depend on earlier requests."""
    opset = file.opsets.get("ai.onnx", 0)
    returned = frozenset(file.graph.outputs)
    for graph in (file.graph, *file.functions.values()):
        for node, is_nested in _nodes(graph):
            if node.operator != "BatchNormalization" or node.domain not in _OWN_DOMAINS:
                continue
            gives_both = returned.issuperset(node.outputs[1:3]) and graph is file.graph and not is_nested
            if is_training(node, opset) and not gives_both:
                raise ModelLoadError(
                    f"{node}: expected BatchNormalization for inference, got one in training mode: each request would "
                    "change the weights, and so the answers to later ones; export the model for inference "
                    "(torch.onnx.export of a model after model.eval(), with training=TrainingMode.EVAL)"
                )


def _nodes(graph: Graph, *, is_nested: bool = False) -> Iterator[tuple[Node, bool]]:
    """Yield the operators of ``graph`` and of the graphs in it, and whether they are in one of these."""
    for node in graph.nodes:
        yield node, is_nested
        for value in node.attributes.values():
            if isinstance(value, Graph):
                yield from _nodes(value, is_nested=True)

"""The inputs and outputs that a model is served with, of those that it declares. Pure: knows no session."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from inferd.dtypes import ALL, BY_NAME, BYTES
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.onnx_file import ModelFile, TensorType
from inferd.runtime.signature import TensorSpec, tensor_spec

#: Name, type and shape of a tensor in ONNX Runtime's form.
Declaration = tuple[str, str, Sequence[int | str | None]]

#: ONNX Runtime's interface cannot run these together.
_APART = frozenset({BYTES, BY_NAME["BF16"]})

#: Before this version, initializers among the inputs were constants.
_OVERRIDABLE_SINCE_IR = 4

_ONNX_NAMES = {datatype.onnx_element_type: datatype.onnx for datatype in ALL}


@dataclass(frozen=True, slots=True)
class Declared:
    """What a model is served with, optional inputs after the others; ``left_out`` has a sentence about the rest."""

    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    left_out: str


def served_declarations(
    inputs: Iterable[Declaration], optional: Iterable[Declaration], outputs: Iterable[Declaration]
) -> Declared:
    """Return the inputs and outputs that the model is served with.

    Outputs and ``optional`` inputs that cannot be sent are left out, the latter without a word. Raises `ModelLoadError`
    for any other input that cannot be sent, and if no output is left.
    """
    required = [tensor_spec("input", *tensor) for tensor in inputs]
    served, left_out = _served_outputs(outputs)
    return Declared([*required, *_optional_inputs(optional, [*required, *served])], served, left_out)


def declared_in(file: ModelFile) -> Declared:
    """Return the inputs and outputs that the model in ``file`` is served with. Raises `ModelLoadError`.

    ONNX Runtime knows the shapes of outputs more exactly, where the file leaves them open.
    """
    graph = file.graph
    has_optional = file.ir_version >= _OVERRIDABLE_SINCE_IR
    return served_declarations(
        [_declaration(name, graph.types[name]) for name in graph.inputs if name not in graph.constants],
        [_declaration(name, graph.types[name]) for name in graph.inputs if name in graph.constants and has_optional],
        [_declaration(name, graph.types[name]) for name in graph.outputs],
    )


def _declaration(name: str, declared: TensorType) -> Declaration:
    if not declared.element:
        return name, "no tensor", ()
    kind = _ONNX_NAMES.get(declared.element, f"tensor(type {declared.element} of ONNX)")
    return name, kind, [size if size != "" else None for size in declared.dims or ()]


def _served_outputs(outputs: Iterable[Declaration]) -> tuple[list[TensorSpec], str]:
    served: list[TensorSpec] = []
    refused: list[ModelLoadError] = []
    for tensor in outputs:
        try:
            served.append(tensor_spec("output", *tensor))
        except ModelLoadError as error:
            refused.append(error)
    if refused and not served:
        raise refused[0]
    reasons = "; ".join(map(str, refused))
    return served, f"the model is served without the outputs that cannot be sent: {reasons}" if reasons else ""


def _optional_inputs(initializers: Iterable[Declaration], others: Sequence[TensorSpec]) -> list[TensorSpec]:
    """Return the inputs with defaults that can be sent in a request to the model with ``others``."""
    taken = {spec.datatype for spec in others}
    optional: list[TensorSpec] = []
    for tensor in initializers:
        try:
            spec = replace(tensor_spec("input", *tensor), optional=True)
        except ModelLoadError:
            # The model runs without the input.
            continue
        if spec.datatype not in _APART or not taken & (_APART - {spec.datatype}):
            taken.add(spec.datatype)
            optional.append(spec)
    return optional

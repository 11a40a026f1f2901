"""Read an ONNX file without loading its weights: versions, producer, and the graph of operators.

An ONNX file is a protobuf message (onnx.proto of the ONNX project). It is read once; tensors are skipped except for
small integer ones, which are axes, shapes and indices.
"""

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from inferd.runtime.errors import ModelLoadError
from inferd.runtime.onnx_wire import Content, Field, fields, integers, signed, text
from inferd.small_files import open_file, why_unreadable

#: Larger files are mapped into memory, so that their weights are not read. A file that is truncated while it is mapped
#: ends the process.
_MOST_BYTES_READ = 16 * 2**20

#: The type of an attribute in ONNX's AttributeProto.
_LIST_OF_INTEGERS = 7

#: Integer tensors with more elements than this are weights or tables, not axes or shapes.
_MOST_ELEMENTS_KEPT = 256

#: Floats and texts among the element types of ONNX's TensorProto.
_FLOAT = 1
_STRING = 8
#: The number 1 as encoded in files.
_FLOAT_ONE = struct.pack("<f", 1)

#: Those of them whose small tensors are kept, with their size in bytes.
_INTEGERS: Mapping[int, int] = {6: 4, 7: 8, 9: 1}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A constant of the graph. ``integers`` are its elements if it is a small tensor of INT32, INT64 or BOOL.

    ``blank``: its elements are empty texts. ``one_first``: it is a list of floats that begins with 1.
    """

    dims: tuple[int, ...] = ()
    integers: tuple[int, ...] | None = None
    blank: bool = False
    one_first: bool = False


@dataclass(frozen=True, slots=True)
class TensorType:
    """A declared tensor: its element type in ONNX's numbers, 0 if it is no tensor, and its dims; None without shape.

    A dim is a number, a name, or "" for any size.
    """

    element: int = 0
    dims: tuple[int | str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """One operator. ``attributes`` are integers, tuples of integers, text, `Tensor` or `Graph`; others are None.

    Of lists of floats or texts, only the length is known.
    """

    operator: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: "Mapping[str, Attribute]"

    def __str__(self) -> str:
        return f'{self.operator} "{self.name}"' if self.name else self.operator


@dataclass(frozen=True, slots=True)
class Graph:
    """Operators in execution order; ``inputs`` and ``outputs`` by name, with their ``types``."""

    nodes: tuple[Node, ...] = ()
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    types: Mapping[str, TensorType] = field(default_factory=dict)


Attribute = int | tuple[int, ...] | str | Tensor | Graph | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFile:
    """``opsets`` is the version by domain, with "ai.onnx" for ONNX's own operators.

    ``functions`` are operators defined in the file, by domain and name. ``external_files`` are the names of external
    weight files.
    """

    ir_version: int = 0
    producer_name: str = ""
    producer_version: str = ""
    opsets: Mapping[str, int] = field(default_factory=dict)
    graph: Graph = field(default_factory=Graph)
    functions: Mapping[tuple[str, str], Graph] = field(default_factory=dict)
    external_files: frozenset[str] = frozenset()


def read_model_file(path: Path) -> ModelFile:
    """Read the ONNX file at ``path``. Raises `ModelLoadError` if it is not one."""
    try:
        with open_file(path) as file:
            content = file.read(_MOST_BYTES_READ)
            if not content:
                msg = f"{path.name} is not an ONNX file: it is empty"
                raise ModelLoadError(msg)
            if len(content) < _MOST_BYTES_READ:
                return _Reader(content).model()
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                return _Reader(mapped).model()
    except OSError as error:
        msg = f"cannot read {path.name}: {why_unreadable(path, error)}"
        raise ModelLoadError(msg) from error
    except RecursionError as error:
        msg = f"{path.name} is not an ONNX file: its graphs are nested too deeply"
        raise ModelLoadError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path.name} is not an ONNX file: a name in it is not UTF-8, so it is damaged"
        raise ModelLoadError(msg) from error
    except ValueError as error:
        msg = f"{path.name} is not an ONNX file: {error}"
        raise ModelLoadError(msg) from error


class _Reader:
    """Walks the messages of an ONNX file. Raises `ValueError` if it is damaged."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._external: set[str] = set()

    def model(self) -> ModelFile:
        """Read a ModelProto, which is the whole file."""
        numbers: dict[int, int] = {}
        texts: dict[int, str] = {}
        opsets: dict[str, int] = {}
        functions: dict[tuple[str, str], Graph] = {}
        graph = Graph()
        for part in fields(self._content, 0, len(self._content)):
            if part.number == 1:
                numbers[1] = part.value
            elif part.number in {2, 3}:
                texts[part.number] = self._text(part)
            elif part.number == 7:
                graph = self._graph(part)
            elif part.number == 8:
                domain, version = self._opset(part)
                opsets[domain] = version
            elif part.number == 25:
                for key, body in self._function(part).items():
                    # Of several with one name, it is unknown which is called.
                    functions[key] = Graph() if key in functions else body
        return ModelFile(
            ir_version=numbers.get(1, 0),
            producer_name=texts.get(2, ""),
            producer_version=texts.get(3, ""),
            opsets=opsets,
            graph=graph,
            functions=functions,
            external_files=frozenset(self._external),
        )

    def _opset(self, message: Field) -> tuple[str, int]:
        domain, version = "", 0
        for part in self._fields(message):
            if part.number == 1:
                domain = self._text(part)
            elif part.number == 2:
                version = part.value
        return domain or "ai.onnx", version

    def _graph(self, message: Field) -> Graph:
        nodes: list[Node] = []
        constants: dict[str, Tensor] = {}
        inputs: list[str] = []
        outputs: list[str] = []
        types: dict[str, TensorType] = {}
        for part in self._fields(message):
            if part.number == 1:
                nodes.append(self._node(part))
            elif part.number == 5:
                name, tensor = self._tensor(part)
                constants[name] = tensor
            elif part.number in {11, 12}:
                name, declared = self._value(part)
                (inputs if part.number == 11 else outputs).append(name)
                types[name] = declared
            elif part.number == 15:
                name = self._sparse_name(part)
                constants[name] = Tensor()
        return Graph(tuple(nodes), constants, tuple(inputs), tuple(outputs), types)

    def _function(self, message: Field) -> dict[tuple[str, str], Graph]:
        name = domain = ""
        nodes: list[Node] = []
        inputs: list[str] = []
        outputs: list[str] = []
        for part in self._fields(message):
            if part.number == 1:
                name = self._text(part)
            elif part.number == 10:
                domain = self._text(part)
            elif part.number in {4, 5}:
                (inputs if part.number == 4 else outputs).append(self._text(part))
            elif part.number == 7:
                nodes.append(self._node(part))
        return {(domain, name): Graph(tuple(nodes), {}, tuple(inputs), tuple(outputs))}

    def _node(self, message: Field) -> Node:
        inputs: list[str] = []
        outputs: list[str] = []
        texts = {3: "", 4: "", 7: ""}
        attributes: dict[str, Attribute] = {}
        for part in self._fields(message):
            if part.number == 1:
                inputs.append(self._text(part))
            elif part.number == 2:
                outputs.append(self._text(part))
            elif part.number in texts:
                texts[part.number] = self._text(part)
            elif part.number == 5:
                name, value = self._attribute(part)
                attributes[name] = value
        return Node(texts[4], texts[7], texts[3], tuple(inputs), tuple(outputs), attributes)

    def _attribute(self, message: Field) -> tuple[str, Attribute]:
        name = ""
        value: Attribute = None
        integers: list[int] = []
        listed = 0
        is_list = is_handed_on = False
        for part in self._fields(message):
            match part.number:
                case 1:
                    name = self._text(part)
                case 3 | 4 | 5 | 6:
                    value = self._single(part)
                case 7 | 9:
                    # Of floats and texts, the number is enough.
                    listed += (part.end - part.start) // 4 if part.number == 7 else 1
                case 8:
                    integers += self._integers(part)
                case 20:
                    is_list = part.value == _LIST_OF_INTEGERS
                case 21:
                    # In the body of a function: the attribute of the call.
                    is_handed_on = True
        if is_handed_on:
            return name, None
        if listed:
            value = Tensor((listed,))
        return name, tuple(integers) if integers or is_list else value

    def _single(self, part: Field) -> Attribute:
        """Return the value of an attribute that is no list."""
        match part.number:
            case 3:
                return signed(part.value)
            case 4:
                # Custom operators may have any bytes here.
                return self._content[part.start : part.end].decode(errors="replace")
            case 5:
                return self._tensor(part)[1]
        return self._graph(part)

    def _tensor(self, message: Field) -> tuple[str, Tensor]:
        name, element, raw = "", 0, b""
        dims: list[int] = []
        integers: list[int] = []
        for part in self._fields(message):
            match part.number:
                case 1:
                    dims += self._integers(part)
                case 2:
                    element = part.value
                case 5 | 7 if part.end - part.start <= _MOST_ELEMENTS_KEPT * 10:
                    integers += self._integers(part)
                case 8:
                    name = self._text(part)
                case 9 if part.end - part.start <= _MOST_ELEMENTS_KEPT * 8:
                    raw = self._content[part.start : part.end]
                case 13:
                    self._note_external(part)
        if raw and element in _INTEGERS:
            size = _INTEGERS[element]
            integers = [
                int.from_bytes(raw[at : at + size], "little", signed=size > 1) for at in range(0, len(raw), size)
            ]
        elements = 1
        for dim in dims:
            elements *= dim
        kept = element in _INTEGERS and len(integers) == elements
        blank = element == _STRING and self._is_blank(message)
        one_first = element == _FLOAT and len(dims) == 1 and self._is_one_first(message)
        return name, Tensor(tuple(dims), tuple(integers) if kept else None, blank, one_first)

    def _is_blank(self, message: Field) -> bool:
        return all(part.number != 6 or part.start == part.end for part in self._fields(message))

    def _is_one_first(self, message: Field) -> bool:
        for part in self._fields(message):
            if part.number in {4, 9} and part.end > part.start:
                return self._content[part.start : part.start + 4] == _FLOAT_ONE
        return False

    def _note_external(self, entry: Field) -> None:
        pair = {part.number: self._text(part) for part in self._fields(entry)}
        if pair.get(1) == "location":
            self._external.add(pair.get(2, ""))

    def _sparse_name(self, message: Field) -> str:
        """Return the name of a SparseTensorProto, which is that of its values."""
        for part in self._fields(message):
            if part.number == 1:
                return self._tensor(part)[0]
        return ""

    def _value(self, message: Field) -> tuple[str, TensorType]:
        """Return the name and type of a ValueInfoProto."""
        name, found = "", TensorType()
        for part in self._fields(message):
            if part.number == 1:
                name = self._text(part)
            elif part.number == 2:
                tensors = [self._tensor_type(kind) for kind in self._fields(part) if kind.number == 1]
                found = tensors[-1] if tensors else found
        return name, found

    def _tensor_type(self, message: Field) -> TensorType:
        element = 0
        dims: tuple[int | str, ...] | None = None
        for part in self._fields(message):
            if part.number == 1:
                element = part.value
            elif part.number == 2:
                dims = tuple(self._dim(dim) for dim in self._fields(part) if dim.number == 1)
        return TensorType(element, dims)

    def _dim(self, message: Field) -> int | str:
        for part in self._fields(message):
            if part.number in {1, 2}:
                return signed(part.value) if part.number == 1 else self._text(part)
        return ""

    def _text(self, part: Field) -> str:
        return text(self._content, part)

    def _integers(self, part: Field) -> list[int]:
        return integers(self._content, part)

    def _fields(self, message: Field) -> Iterator[Field]:
        return fields(self._content, message.start, message.end)

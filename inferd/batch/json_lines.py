"""Format rows as lines of JSON, a column at a time, without Python objects for elements."""

import json
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inferd.batch.column_types import is_list, is_text
from inferd.batch.layouts import plain

#: The most bytes that are formatted at a time; texts of numbers are a few times as long.
_STEP_BYTES = 16 << 20

_CONTROLS = {chr(code): json.dumps(chr(code))[1:-1] for code in range(32)}

#: Texts for floats that JSON has no numbers for.
_NO_NUMBERS: Mapping[str, Callable[[pa.Array], pa.Array]] = {
    "NaN": pc.is_nan,
    "Infinity": lambda array: pc.equal(array, np.inf),
    "-Infinity": lambda array: pc.equal(array, -np.inf),
}


def lines_of(table: pa.RecordBatch) -> Iterator[memoryview]:
    """Yield the rows of ``table`` as lines.

    Numbers have the fewest digits that identify them; NaN and the infinities are texts, as in `inferd infer --json`.
    Raises an error of pyarrow for columns of types without a form in JSON.
    """
    steps = -(-table.nbytes // _STEP_BYTES)
    rows = max(1, -(-table.num_rows // max(1, steps)))
    for first in range(0, max(1, table.num_rows), rows):
        step = table.slice(first, rows)
        yield _text(_objects(step.schema.names, [texts_of(column) for column in step.columns], step.num_rows, "\n"))


def texts_of(array: pa.Array) -> pa.Array:
    """Return the elements of ``array`` as JSON; null is ``null``."""
    kind = array.type
    types = pa.types
    if isinstance(kind, pa.FixedShapeTensorType):
        return texts_of(plain(array))
    if types.is_floating(kind):
        texts = _floats(array)
    elif is_text(kind):
        texts = _strings(array)
    elif is_list(kind):
        texts = _lists(array)
    elif types.is_struct(kind):
        fields = [texts_of(array.field(index)) for index in range(kind.num_fields)]
        texts = _where_valid(array, _objects([field.name for field in kind], fields, len(array), ""))
    elif types.is_integer(kind) or types.is_boolean(kind) or types.is_decimal(kind):
        texts = array.cast(pa.string())
    elif types.is_temporal(kind):
        texts = _strings(array.cast(pa.string()))
    else:
        msg = f"JSON has no form for {kind}"
        raise pa.ArrowNotImplementedError(msg)
    return texts.fill_null("null")


def _objects(names: list[str], texts: list[pa.Array], rows: int, end: str) -> pa.Array:
    pieces: list[object] = []
    for name, column in zip(names, texts, strict=True):
        pieces += ["," + json.dumps(name, ensure_ascii=False) + ":", column]
    if not pieces:
        return pa.array(["{}" + end] * rows, pa.string())
    return pc.binary_join_element_wise("{" + str(pieces[0])[1:], *pieces[1:], "}" + end, "")


def _floats(array: pa.Array) -> pa.Array:
    if pa.types.is_float16(array.type):
        array = array.cast(pa.float32())
    texts = array.cast(pa.string())
    whole = pc.and_(pc.is_finite(array), pc.equal(array, pc.trunc(array)))
    if pc.any(whole).as_py():
        # So that a reader sees floats, not integers.
        is_plain = pc.and_(whole, pc.invert(pc.match_substring(texts, "e")))
        texts = pc.if_else(is_plain, pc.binary_join_element_wise(texts, ".0", ""), texts)
    if not pc.all(pc.is_finite(array)).as_py():
        for name, is_it in _NO_NUMBERS.items():
            texts = pc.if_else(is_it(array), f'"{name}"', texts)
    return texts


def _strings(array: pa.Array) -> pa.Array:
    texts = array.cast(pa.string())
    escapes = {"\\": r"\\", '"': r"\""}
    if len(texts) and (np.frombuffer(_text(texts), np.uint8) < len(_CONTROLS)).any():
        escapes |= _CONTROLS
    for character, escape in escapes.items():
        if pc.any(pc.match_substring(texts, character)).as_py():
            texts = pc.replace_substring(texts, character, escape)
    return pc.binary_join_element_wise('"', texts, '"', "")


def _lists(array: pa.Array) -> pa.Array:
    lengths = pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False)
    offsets = np.zeros(len(array) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    elements = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), texts_of(array.flatten()))
    return _where_valid(array, pc.binary_join_element_wise("[", pc.binary_join(elements, ","), "]", ""))


def _where_valid(array: pa.Array, texts: pa.Array) -> pa.Array:
    return texts if array.null_count == 0 else pc.if_else(array.is_valid(), texts, None)


def _text(texts: pa.Array) -> memoryview:
    """Return the concatenated ``texts``."""
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int32)
    return memoryview(data or b"")[ends[texts.offset] : ends[texts.offset + len(texts)]]

"""CSV and JSON Lines: rows and values, whatever the text and wherever it is cut."""

import csv
import io
import json
from unittest.mock import patch

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.batch.ports import SourceFile
from inferd.batch.sources import jsonl
from inferd.batch.sources.csv import CsvReader
from inferd.batch.sources.csv_rows import CsvScanner
from inferd.batch.sources.jsonl import JsonlReader
from inferd.batch.sources.text_rows import RowTexts

FILE = SourceFile(address="a", format="csv", size=0, version="1")

SOME_CSV = st.text(st.sampled_from('ab,"\r\n\n"",'), max_size=60).map(str.encode)
FIELDS = st.text(st.sampled_from('ab,"\n ö'), max_size=4)
SCHEMA = pa.schema([("i", pa.int16()), ("f", pa.float32()), ("s", pa.string()), ("l", pa.list_(pa.list_(pa.int8())))])

_numbers = st.integers(-(2**17), 2**17) | st.floats(width=32) | st.sampled_from([1.0, 2.5, 2**70])
_values = st.none() | st.booleans() | _numbers | st.text(max_size=3) | st.sampled_from(["NaN", "-Infinity"])
_lists = st.lists(st.none() | st.lists(st.none() | st.integers(-130, 130), max_size=3), max_size=3)
OBJECTS = st.dictionaries(st.sampled_from("ifslx"), _values | _lists, max_size=4).map(json.dumps)
LINES = st.lists(OBJECTS | st.sampled_from(["", " ", "{", '{"i":1', "}", "[]", "1", '{"i":1} {"i":2}']), max_size=12)


def _scanned(content: bytes, *, cuts: list[int]) -> list[tuple[bytes, int, bool]]:
    """Return text, fields and whether it is malformed of each row, in steps that end at ``cuts``."""
    scanner = CsvScanner(b",")
    rows: list[tuple[bytes, int, bool]] = []
    data = b""
    places = [0, *sorted({min(cut, len(content)) for cut in cuts}), len(content)]
    for start, stop in zip(places, [*places[1:], None], strict=True):
        data += content[start:stop]
        texts, rest = scanner.scan(data, is_end=stop is None)
        rows += [(texts.text(index), int(texts.fields[index]), index in texts.bad) for index in range(len(texts))]
        data = data[rest:]
    assert not data
    return rows


@given(SOME_CSV, st.lists(st.integers(0, 60), max_size=5))
def test_rows_do_not_depend_on_the_steps_of_a_file(content, cuts):
    """Any text has the same rows, malformed ones too, and no byte but line ends is in none."""
    rows = _scanned(content, cuts=[])
    assert _scanned(content, cuts=cuts) == rows
    assert sum(len(text.replace(b"\r", b"").replace(b"\n", b"")) for text, _, _ in rows) == len(
        content.replace(b"\r", b"").replace(b"\n", b"")
    )


@given(st.lists(st.lists(FIELDS, min_size=2, max_size=2), max_size=12), st.sampled_from(["\n", "\r\n"]), st.data())
def test_csv_of_others_is_read(rows, end, data):
    """What Python's writer writes has its fields, beside malformed rows."""
    lines, expected = ["a,b" + end], {}
    number = 0
    for row in rows:
        if data.draw(st.booleans()):
            lines.append(data.draw(st.sampled_from(['"x"y,', 'x,"y"z', "x", "1,2,3"])) + end)
            number += 1
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator=end).writerow(row)
        lines.append(text.getvalue())
        expected[number] = tuple(row)
        number += 1
    found = _csv_rows("".join(lines).encode(), number)
    assert found == expected


def _csv_rows(content: bytes, count: int) -> dict[int, tuple[str, ...]]:
    schema = pa.schema([("a", pa.string()), ("b", pa.string())])
    values, numbers = {}, []
    with patch("inferd.batch.sources.text_rows.texts_of", lambda *_: iter([content])):
        for chunk in CsvReader().read(FILE, schema, 0, count, 5):
            values |= dict(zip(chunk.rows.tolist(), map(tuple, map(dict.values, chunk.table.to_pylist())), strict=True))
            numbers += [*chunk.rows.tolist(), *(error.row for error in chunk.errors)]
    assert sorted(numbers) == list(range(count))
    return values


@settings(max_examples=300)
@given(LINES)
def test_lines_have_the_same_values_beside_any_others(lines):
    """Lines that pyarrow's parser reads are read to the same values one by one, and errors are errors."""
    together = _json_rows(lines)
    with patch.object(jsonl, "_parsed", lambda *_: None):
        assert _json_rows(lines) == together
    kept = [line for line in lines if line.strip()]
    alone = [_json_rows([line])[0] for line in kept]
    assert alone == [together[row] for row in range(len(kept))]


def _json_rows(lines: list[str]) -> dict[int, object]:
    found: dict[int, object] = {}
    with patch("inferd.batch.sources.text_rows.texts_of", lambda *_: iter(["\n".join(lines).encode()])):
        for chunk in JsonlReader().read(FILE, SCHEMA, 0, 1 << 40, 1 << 20):
            found |= {error.row: error.message for error in chunk.errors}
            # NaN is not equal to itself.
            found |= dict(zip(chunk.rows.tolist(), map(repr, chunk.table.to_pylist()), strict=True))
    return found


@given(st.lists(st.integers(1, 5), min_size=1, max_size=20), st.data())
def test_slices_of_rows(lengths, data):
    """They have their rows' texts and numbers."""
    ends = np.cumsum(lengths)
    texts = RowTexts(b"x" * int(ends[-1]), ends - lengths, ends, np.array(lengths), {0: "bad"}, 7)
    start = data.draw(st.integers(0, len(lengths)))
    stop = data.draw(st.integers(start, len(lengths)))
    cut = texts.slice(start, stop)
    assert [len(cut.text(index)) for index in range(len(cut))] == lengths[start:stop]
    assert cut.first == 7 + start
    assert cut.bad == ({0: "bad"} if start == 0 < stop else {})

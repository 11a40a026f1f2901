"""JSON Lines: rows and their numbers, values, and what malformed lines cost."""

import gzip

import numpy as np
import pyarrow as pa
import pytest

from inferd.batch.errors import UnreadableFileError
from inferd.batch.exact_numbers import marked
from inferd.batch.sources import text_rows
from inferd.batch.sources.jsonl import JsonlReader
from tests.unit.batch.sources.files import rows_of, source

SCHEMA = pa.schema([("x", pa.int64()), ("s", pa.string())])


def _file(tmp_path, content, name="a.jsonl"):
    (tmp_path / name).write_bytes(content)
    return source(tmp_path / name, "jsonl")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_lines_are_rows(tmp_path, end, mark):
    """Line ends, the mark of UTF-8 and lines without anything do not matter, nor a line end at the end."""
    lines = ['{"x": 1, "s": "a"}', "", '{"s": "ö\\n"}', "  ", '{"x": 3, "y": [1]}']
    file = _file(tmp_path, mark + end.join(lines).encode())
    assert rows_of(JsonlReader(), file, SCHEMA) == ({0: (1, "a"), 1: (None, "ö\n"), 2: (3, None)}, {})


def test_malformed_lines_cost_their_rows(tmp_path):
    """Whatever is wrong with them, rows after them have their numbers."""
    lines = [
        b'{"x": 1, "s": "a"}',
        b'{"x": 1',
        b"}",
        b'{"x": 1} {"x": 2}',
        b"[1]",
        b'{"s": "\xff"}',
        b'{"s": "\\ud800"}',
        b'{"x": "' + b"[" * 100_000,
        b"[" * 100_000,
        b'{"x": 2, "s": "b"}',
    ]
    values, errors = rows_of(JsonlReader(), _file(tmp_path, b"\n".join(lines)), SCHEMA)
    assert values == {0: (1, "a"), 9: (2, "b")}
    assert sorted(errors) == list(range(1, 9))
    assert errors[4] == "malformed: expected an object, got [1]"
    assert all(len(text) < 300 for text in errors.values())


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (pa.int64(), {"1": 1, "2.0": 2, "-3": -3, "null": None}, ['"1"', "1.5", "true", "[1]", "9223372036854775808"]),
        (pa.uint8(), {"255": 255}, ["256", "-1"]),
        (
            pa.float32(),
            {"1": 1.0, "0.1": float(np.float32(0.1)), '"Infinity"': np.inf, "-Infinity": -np.inf, "1e300": np.inf},
            ['"1"', "true", "{}"],
        ),
        (pa.float64(), {"9007199254740993": 9007199254740992.0}, ['"x"']),
        (pa.bool_(), {"true": True}, ["1", '"true"']),
        (pa.string(), {'"a"': "a", '""': "", "1": "1", "true": "true", "1.5": "1.5"}, ['["a"]', "{}"]),
        (pa.list_(pa.list_(pa.int8())), {"[[1],[2,null]]": [[1], [2, None]], "[]": []}, ["[1]", "[[300]]", "[[1.5]]"]),
        (pa.list_(pa.float32(), 2), {"[1, 2]": [1.0, 2.0], '["-Infinity", 2]': [-np.inf, 2.0]}, ["[1]", "1"]),
        (pa.struct([("a", pa.int32())]), {'{"a":1,"b":2}': {"a": 1}, "{}": {"a": None}}, ['{"a":1.5}', "1"]),
        (pa.float16(), {"0.5": 0.5}, ['"a"']),
        (pa.date32(), {'"1970-01-02"': np.datetime64("1970-01-02").item()}, ['"1970"', "3"]),
    ],
)
def test_values_of_a_type(tmp_path, kind, good, bad):
    """Values are the same beside a bad one and apart, and bad ones cost their rows."""
    schema = pa.schema([("x", kind)])
    lines = [f'{{"x": {text}}}' for text in [*good, *bad]]
    values, errors = rows_of(JsonlReader(), _file(tmp_path, "\n".join(lines).encode()), schema)
    assert values == {row: (value,) for row, value in enumerate(good.values())}
    assert list(errors) == list(range(len(good), len(lines)))
    assert all(text.startswith(f'column "x": expected {kind}, got ') for text in errors.values())
    alone, none = rows_of(JsonlReader(), _file(tmp_path, "\n".join(lines[: len(good)]).encode()), schema)
    assert (alone, none) == (values, {})


@pytest.mark.parametrize("beside", ['{"x": 1}', '{"x": "a"}'])
def test_zeros_keep_their_signs(tmp_path, beside):
    """The integer -0 too, as Go writes -0.0, also beside a row that is parsed line by line."""
    file = _file(tmp_path, f'{{"x": -0}}\n{{"x": 0}}\n{beside}'.encode())
    values, _ = rows_of(JsonlReader(), file, pa.schema([("x", pa.float32())]))
    assert np.signbit([values[0][0], values[1][0]]).tolist() == [True, False]


def test_types_of_the_first_rows(tmp_path):
    """Numbers, texts and lists are told apart; times stay texts, and so does what is mixed."""
    file = _file(
        tmp_path,
        b'{"i":1,"f":1,"s":"2026-01-01","n":null,"m":1,"l":[[1.5]]}\nnot JSON\n'
        b'{"i":2,"f":2.5,"b":true,"m":"x","d":{"a":1}}',
    )
    assert JsonlReader().schema(file) == pa.schema(
        [
            ("i", pa.int64()),
            ("f", pa.float64()),
            ("s", pa.string()),
            ("n", pa.null()),
            ("m", pa.string()),
            ("l", pa.list_(pa.list_(pa.float64()))),
            ("b", pa.bool_()),
            ("d", pa.struct([("a", pa.int64())])),
        ]
    )


def test_other_json_is_refused(tmp_path):
    """One array over all lines, as of other JSON, is said to be that."""
    file = _file(tmp_path, b'[\n{"x": 1}]\n')
    with pytest.raises(UnreadableFileError, match="an object in each line; the first is malformed"):
        JsonlReader().schema(file)


def test_empty_file_has_no_rows(tmp_path):
    """Nor has it columns."""
    file = _file(tmp_path, b"\n")
    assert JsonlReader().schema(file) == pa.schema([])
    assert list(JsonlReader().spans(file)) == [0]


def test_columns_of_the_path(tmp_path):
    """A column that the path gives is not looked for in the lines."""
    (tmp_path / "a.jsonl").write_bytes(b'{"x": 1, "year": 1}\n')
    file = source(tmp_path / "a.jsonl", "jsonl", {"year": 2026})
    assert rows_of(JsonlReader(), file) == ({0: (1, 2026)}, {})


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_ranges_in_long_files(tmp_path, suffix, monkeypatch):
    """Any range of a file of many steps has its rows, from a reader that knows the file and from one that does not."""
    monkeypatch.setattr(text_rows, "_PLACE_BYTES", 1 << 20)
    content = b"".join(b'{"x": %d, "s": "%s"}\n' % (row, b"y" * (row % 200)) for row in range(30_000))
    packed = {"": lambda data: data, ".gz": gzip.compress, ".zst": lambda data: pa.compress(data, "zstd", asbytes=True)}
    file = _file(tmp_path, packed[suffix](content), f"a.jsonl{suffix}")
    reader = JsonlReader()
    assert list(reader.spans(file)) == [30_000]
    for start, stop in [(0, 100), (100, 300), (29_000, 30_000), (10_000, 10_001), (10_001, 10_100)]:
        expected = {row: (row, "y" * (row % 200)) for row in range(start, stop)}
        assert rows_of(reader, file, SCHEMA, start, stop, rows=1000) == (expected, {})
        assert rows_of(JsonlReader(), file, SCHEMA, start, stop, rows=70) == (expected, {})


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_truncation_costs_the_end_only(tmp_path, suffix):
    """What was there before is read; where it ends is one error row."""
    content = b"".join(b'{"x": %d}\n' % (row * 7919 % 100_003) for row in range(100_000))
    packed = gzip.compress(content) if suffix == "gz" else pa.compress(content, "zstd", asbytes=True)
    file = _file(tmp_path, packed[: len(packed) // 2], f"a.jsonl.{suffix}")
    (rows,) = JsonlReader().spans(file)
    values, errors = rows_of(JsonlReader(), file, pa.schema([("x", pa.int64())]), rows=5000)
    assert rows > 20_000
    assert values == {row: (row * 7919 % 100_003,) for row in range(rows - 1)}
    assert list(errors) == [rows - 1]


@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl.gz", b"no gzip"), ("a.jsonl.zst", b"none"), ("a.jsonl", b"\xff\xfea")]
)
def test_rejects_other_files(tmp_path, name, content):
    """What cannot be read from its first byte on is unreadable."""
    with pytest.raises(UnreadableFileError):
        JsonlReader().spans(_file(tmp_path, content, name))


def test_row_too_long_for_memory_is_skipped(tmp_path, monkeypatch):
    """It is skipped without being in memory as a whole, and those after it are read."""
    monkeypatch.setattr(text_rows, "LONGEST_ROW_BYTES", 1 << 20)
    content = b'{"x": 0}\n{"x": "' + b"a" * (5 << 20) + b'"}\n{"x": 2}\n'
    values, errors = rows_of(JsonlReader(), _file(tmp_path, content), pa.schema([("x", pa.int64())]))
    assert values == {0: (0,), 2: (2,)}
    assert list(errors) == [1]


def test_kept_numbers_are_not_rounded(tmp_path):
    """Also in lists: one that comes after the rows that told the type is an error of its row."""
    lines = [b'{"a": 1.5, "l": [1]}', b'{"a": 9007199254740993}', b'{"l": [9007199254740993]}', b'{"a": 1e17}']
    file = _file(tmp_path, b"\n".join(lines))
    fields = [pa.field("a", pa.float64()), pa.field("l", pa.list_(pa.float64()))]
    values, errors = rows_of(JsonlReader(), file, pa.schema([marked(field) for field in fields]))
    assert values == {0: (1.5, [1.0]), 3: (1e17, None)}
    assert errors == {
        1: 'column "a": expected double, got 9007199254740993',
        2: 'column "l": expected list<item: double>, got [9007199254740993]',
    }
    assert rows_of(JsonlReader(), file, pa.schema(fields))[1] == {}

"""CSV: rows and their numbers, fields in quotes, types, and what malformed rows cost."""

import gzip

import pyarrow as pa
import pytest

from inferd.batch.errors import UnreadableFileError
from inferd.batch.exact_numbers import marked
from inferd.batch.sources import text_rows
from inferd.batch.sources.csv import CsvReader
from tests.unit.batch.sources.files import rows_of, source

TEXTS = pa.schema([("a", pa.string()), ("b", pa.string())])


def _file(tmp_path, content, name="a.csv"):
    (tmp_path / name).write_bytes(content)
    return source(tmp_path / name, "csv")


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_rows(tmp_path, end, mark):
    """Line ends, the mark of UTF-8 and lines without anything do not matter; quoted fields may have all of them."""
    rows = [b"a,b", b"1,x", b"", b'2,"y, ""z""' + end + b'"', b",", b'"",""', b'3,5" wide']
    file = _file(tmp_path, mark + end.join(rows))
    expected = {0: ("1", "x"), 1: ("2", 'y, "z"' + end.decode()), 2: ("", ""), 3: ("", ""), 4: ("3", '5" wide')}
    assert rows_of(CsvReader(), file, TEXTS) == (expected, {})


@pytest.mark.parametrize(
    "bad",
    [
        b'1,"x" y',
        b'1,"x',
        b'"1,x',
        b'1,"x"y"',
        b"1",
        b"1,2,3",
        b'1,"2,3',
        b"1,\xff",
        b"1,2\r3,4",
    ],
)
@pytest.mark.parametrize("after", [b"3,z", b'"3",z', b'3,"z"'])
def test_malformed_row_costs_itself(tmp_path, bad, after):
    """The next one is read, with its number; so many of them do not change that."""
    content = b"a,b\n" + b"\n".join([b"0,x", bad, after, *[bad] * 100, after]) + b"\n"
    values, errors = rows_of(CsvReader(), _file(tmp_path, content), TEXTS)
    assert values == {0: ("0", "x"), 2: ("3", "z"), 103: ("3", "z")}
    assert sorted(errors) == [1, *range(3, 103)]


def test_errors_say_what_was_expected(tmp_path):
    """With the column, or the number of fields."""
    content = b'a,b\n1\n1,2,3\n"1"2,3\nx,1\n1,2\n'
    schema = pa.schema([("a", pa.int64()), ("b", pa.string())])
    assert rows_of(CsvReader(), _file(tmp_path, content), schema)[1] == {
        0: "malformed: expected 2 fields, got 1",
        1: "malformed: expected 2 fields, got 3; a field with ',' in it needs quotes",
        2: "malformed: a quoted field does not end, or goes on after its closing quote; or a carriage return in a line",
        3: "column \"a\": expected int64, got 'x'",
    }


@pytest.mark.parametrize("text", ["1,5", "-0,12", "1.234,5", "1,234.5", "1,234,567"])
@pytest.mark.parametrize("kind", [pa.float64(), pa.int64()])
def test_numbers_with_commas_are_named(tmp_path, text, kind):
    """Spreadsheets of many languages write them. They are not guessed, as 1,234 may mean either of two numbers."""
    errors = rows_of(CsvReader(";"), _file(tmp_path, f"a;b\n{text};1\n1;1\n".encode()), pa.schema([("a", kind)]))[1]
    cause = "with a decimal comma or separated thousands; numbers are read as 1234.5"
    assert errors == {0: f"column \"a\": expected {kind}, got '{text}', {cause}"}


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (pa.int64(), {"1": 1, "-2.0": -2, " 3 ": 3, "": None, "NA": None, "null": None}, ["1.5", "x", "9" * 20]),
        (pa.uint8(), {"255": 255}, ["256", "-1"]),
        (pa.float32(), {"1": 1.0, "1e3": 1000.0, "inf": float("inf"), "": None}, ["1,5", "x"]),
        (pa.bool_(), {"true": True, "False": False, "1": True}, ["yes"]),
        (pa.string(), {"NA": "NA", " x ": " x ", "null": "null"}, []),
        (pa.list_(pa.float32()), {"[1, 2.5]": [1.0, 2.5], "": None}, ["[1", "1"]),
    ],
)
def test_fields_of_a_type(tmp_path, kind, good, bad):
    """Empty fields are null where they can be nothing else; bad ones cost their rows."""
    rows = "".join(f'"{text}",\n' for text in [*good, *bad])
    values, errors = rows_of(CsvReader(), _file(tmp_path, b"a,b\n" + rows.encode()), pa.schema([("a", kind)]))
    assert values == {row: (value,) for row, value in enumerate(good.values())}
    assert list(errors) == list(range(len(good), len(good) + len(bad)))
    assert all(text.startswith(f'column "a": expected {kind}, got ') for text in errors.values())


def test_types_of_the_first_rows(tmp_path):
    """The first that fits all fields; codes with zeros are texts."""
    content = b"i,f,b,s,z,n\n1,1,true,x,01,\nnot,enough\n2,NA,false,2026-01-01,2,\n,2.5,,1,3,\n"
    types = [pa.int64(), pa.float64(), pa.bool_(), pa.string(), pa.string(), pa.null()]
    assert CsvReader().schema(_file(tmp_path, content)) == pa.schema(list(zip("ifbszn", types, strict=True)))


def test_tabs_and_columns_of_the_path(tmp_path):
    """A file of the suffix .tsv has tabs between fields; only wanted columns come, in the order of the schema."""
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(b"a\tb\n1\tx,y\n"))
    file = source(tmp_path / "a.tsv.gz", "csv", {"year": 2026})
    assert CsvReader().schema(file) == pa.schema([("a", pa.int64()), ("b", pa.string()), ("year", pa.int32())])
    schema = pa.schema([("year", pa.int64()), ("b", pa.string())])
    assert rows_of(CsvReader(), file, schema) == ({0: (2026, "x,y")}, {})
    assert rows_of(CsvReader(), file, pa.schema([])) == ({0: ()}, {})


@pytest.mark.parametrize("content", [b"", b"\n\n", b'a,"b\n1,2\n', b"\xff\xfea", b"a,\xff\n1,2\n"])
def test_rejects_files_without_column_names(tmp_path, content):
    """It is unreadable."""
    for call in (CsvReader().schema, CsvReader().spans):
        with pytest.raises(UnreadableFileError):
            call(_file(tmp_path, content))


def test_columns_that_are_missing_or_there_twice(tmp_path):
    """They are an error if they are wanted."""
    file = _file(tmp_path, b"a,b,b\n1,2,3\n")
    assert rows_of(CsvReader(), file, pa.schema([("a", pa.int8())])) == ({0: (1,)}, {})
    with pytest.raises(UnreadableFileError, match='expected one column "b", got 2'):
        rows_of(CsvReader(), file, pa.schema([("b", pa.int8())]))
    with pytest.raises(UnreadableFileError, match='expected one column "c", got none'):
        rows_of(CsvReader(), file, pa.schema([("c", pa.int8())]))


def test_quote_that_never_closes_costs_its_line(tmp_path, monkeypatch):
    """Even if so much comes after it that it cannot be in memory."""
    monkeypatch.setattr(text_rows, "LONGEST_ROW_BYTES", 1 << 18)
    good = b"1,x\n" * 300_000
    values, errors = rows_of(CsvReader(), _file(tmp_path, b'a,b\n"1,x\n' + good), TEXTS, rows=100_000)
    assert list(errors) == [0]
    assert len(values) == 300_000


def test_ranges_in_long_files(tmp_path, monkeypatch):
    """Any range has its rows, from a reader that knows the file and from one that does not."""
    monkeypatch.setattr(text_rows, "_PLACE_BYTES", 1 << 20)
    content = b"a,b\n" + b"".join(
        b'%d,"%s\n%s"\n' % (row, b"y" * (row % 200), b"z" * (row % 3)) for row in range(30_000)
    )
    file = _file(tmp_path, content)
    reader = CsvReader()
    assert list(reader.spans(file)) == [30_000]
    for start, stop in [(0, 100), (100, 300), (29_000, 30_000), (10_000, 10_001), (10_001, 10_100)]:
        expected = {row: (str(row), "y" * (row % 200) + "\n" + "z" * (row % 3)) for row in range(start, stop)}
        assert rows_of(reader, file, TEXTS, start, stop, rows=1000) == (expected, {})
        assert rows_of(CsvReader(), file, TEXTS, start, stop, rows=70) == (expected, {})


@pytest.mark.parametrize("delimiter", [";", "|", "\t", "^", "]", "\\", "-", " "])
def test_delimiters(tmp_path, delimiter):
    """Fields have the given character between them, which may be in quotes; commas are characters like others."""
    lines = [["a", "b"], ["1,5", f'"x{delimiter}y"'], ["", "z"], ["only one"]]
    content = "\n".join(delimiter.join(fields) for fields in lines).encode()
    values, errors = rows_of(CsvReader(delimiter), _file(tmp_path, content), TEXTS)
    if delimiter == " ":
        assert values.pop(2) == ("only", "one")
        assert not errors
    else:
        assert errors == {2: "malformed: expected 2 fields, got 1"}
    assert values == {0: ("1,5", f"x{delimiter}y"), 1: ("", "z")}


@pytest.mark.parametrize(
    ("name", "columns"), [("a.tsv", ["a", "b"]), ("a.TSV.gz", ["a", "b"]), ("x.tsv/a.csv", ["a\tb"])]
)
def test_suffix_tells_tabs(tmp_path, name, columns):
    """That of the file, not of its folder."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    content = b"a\tb\n"
    file = _file(tmp_path, gzip.compress(content) if name.endswith("gz") else content, name)
    assert CsvReader().schema(file).names == columns


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1.5", "9007199254740993"], pa.string()),
        (["12345678901234567890", "1"], pa.string()),
        (["1.5", "9007199254740992", "-9007199254740992.0"], pa.float64()),
        (["1.5", "0.12345678901234567890", "1e300"], pa.float64()),
        (["9007199254740993", "1"], pa.int64()),
    ],
)
def test_no_type_that_loses_digits(tmp_path, values, kind):
    """Whole numbers that floats cannot hold beside fractions are texts."""
    assert CsvReader().schema(_file(tmp_path, "\n".join(["a", *values]).encode())) == pa.schema([("a", kind)])


def test_kept_numbers_are_not_rounded(tmp_path):
    """One that comes after the rows that told the type is an error of its row; inputs of models are rounded."""
    file = _file(tmp_path, b"a\n1.5\n9007199254740993\n9007199254740992\n1e17\n")
    field = pa.field("a", pa.float64())
    kept = {0: (1.5,), 2: (2.0**53,), 3: (1e17,)}
    text = "column \"a\": expected double, got '9007199254740993'"
    assert rows_of(CsvReader(), file, pa.schema([marked(field)])) == (kept, {1: text})
    assert rows_of(CsvReader(), file, pa.schema([field])) == (kept | {1: (2.0**53,)}, {})

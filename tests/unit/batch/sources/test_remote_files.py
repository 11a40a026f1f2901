"""Files in remote storage, here fsspec's in memory: read like those on disk; errors of storage are no damage."""

import gzip
import io

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inferd.batch.errors import BatchError
from inferd.batch.sources.finding import find_sources, reader_for
from tests.unit.batch.sources.files import rows_of

TABLE = pa.table({"x": pa.array(range(100), pa.int64())})


def _parquet():
    file = io.BytesIO()
    pq.write_table(TABLE, file, row_group_size=30)
    return file.getvalue()


def _arrow():
    file = io.BytesIO()
    with pa.ipc.new_file(file, TABLE.schema) as writer:
        writer.write_table(TABLE, 30)
    return file.getvalue()


CONTENTS = {
    "a.parquet": _parquet(),
    "a.arrow": _arrow(),
    "a.csv": b"x\n" + b"".join(b"%d\n" % row for row in range(100)),
    "a.csv.gz": gzip.compress(b"x\n" + b"".join(b"%d\n" % row for row in range(100))),
    "a.jsonl": b"".join(b'{"x": %d}\n' % row for row in range(100)),
    "a.jsonl.zst": pa.compress(b"".join(b'{"x": %d}\n' % row for row in range(100)), "zstd", asbytes=True),
}


@pytest.fixture
def storage():
    """An empty storage."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


@pytest.mark.parametrize("name", CONTENTS)
def test_rows_and_columns_of_the_path(storage, name):
    """Each format, below a glob that gives a column."""
    storage.pipe(f"/data/year=2026/{name}", CONTENTS[name])
    (file,) = find_sources(["memory://data/*/*"], None)
    reader = reader_for(file.format)
    values, errors = rows_of(reader, file, start=20, stop=70)
    assert values == {row: (row, 2026) for row in range(20, 70)}
    assert not errors


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("error", [OSError("lost"), RuntimeError("lost")])
def test_lost_storage_ends_the_job(storage, monkeypatch, name, error):
    """Whatever the error of the library is, it costs no rows."""
    storage.pipe(f"/data/{name}", CONTENTS[name])
    (file,) = find_sources([f"memory://data/{name}"], None)
    reader = reader_for(file.format)
    schema = reader.schema(file)
    assert sum(reader.spans(file)) == 100

    def read(*_):
        raise error

    monkeypatch.setattr(fsspec.implementations.memory.MemoryFile, "read", read)
    with pytest.raises(BatchError, match="lost"):
        list(reader.read(file, schema, 0, 100, 10))

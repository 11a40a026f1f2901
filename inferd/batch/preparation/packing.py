"""Columns on their way to a worker process, which prepares them there."""

from collections.abc import Callable
from functools import partial

import pyarrow as pa

from inferd.batch.ports import Preparation, Prepared

#: The only column of what is sent.
_NAME = "column"


def packed(column: pa.Array) -> pa.Buffer:
    """Return ``column`` to be sent; of a slice only its own rows, unlike pickle."""
    batch = pa.record_batch([column], [_NAME])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue()


def begin_preparing(preparation: Preparation) -> Callable[[object], Prepared]:
    """Return what prepares packed columns; runs in the worker process."""
    return partial(_prepared, preparation)


def _prepared(preparation: Preparation, content: object) -> Prepared:
    with pa.ipc.open_stream(content) as stream:
        return preparation(stream.read_next_batch()[_NAME])

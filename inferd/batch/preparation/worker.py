"""A process that prepares columns: it takes a preparation first, then one column after the other."""

import socket
import sys
from typing import cast

import pyarrow as pa

from inferd.batch.ports import Preparation
from inferd.batch.preparation.messages import receive, send

#: The only column of what is sent.
_NAME = "column"


def packed(column: pa.Array) -> pa.Buffer:
    """Return ``column`` to be sent; of a slice only its own rows, unlike pickle."""
    batch = pa.record_batch([column], [_NAME])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue()


def unpacked(content: object) -> pa.Array:
    """Return the column that has been packed."""
    with pa.ipc.open_stream(content) as stream:
        return stream.read_next_batch()[_NAME]


def main() -> None:
    """Serve the connection whose number is the first argument, until the other side has closed it or ended.

    The answer to a column is what the preparation gives, or the text of the error that it raises.
    """
    connection = socket.socket(fileno=int(sys.argv[1]))
    preparation = cast("Preparation", receive(connection))
    send(connection, None)
    while True:
        try:
            content = receive(connection)
        except EOFError:
            return
        send(connection, _answer(preparation, unpacked(content)))


def _answer(preparation: Preparation, column: pa.Array) -> object:
    try:
        return preparation(column)
    except Exception as error:  # noqa: BLE001  (the other side decides)
        return f"{type(error).__name__}: {error}"

"""A process that prepares columns: it takes a preparation first, then one column after the other."""

import sys
from multiprocessing.connection import Connection

import pyarrow as pa

#: The only column of what is sent.
_NAME = "column"


def packed(column: pa.Array) -> pa.Buffer:
    """Return ``column`` to be sent; of a slice only its own rows, unlike pickle."""
    batch = pa.record_batch([column], [_NAME])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue()


def main() -> None:
    """Serve the connection whose number is the first argument, until the other side has closed it or ended.

    The answer to a column is what the preparation gives, or the text of the error that it raises.
    """
    connection = Connection(int(sys.argv[1]))
    preparation = connection.recv()
    connection.send(None)
    while True:
        try:
            content = connection.recv_bytes()
        except EOFError:
            return
        with pa.ipc.open_stream(content) as stream:
            column = stream.read_next_batch().column(_NAME)
        try:
            answer = preparation(column)
        except Exception as error:  # noqa: BLE001  (the other side decides)
            answer = f"{type(error).__name__}: {error}"
        connection.send(answer)

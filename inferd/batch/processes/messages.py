"""Objects between two processes, whose large buffers are not copied on the way."""

import pickle
import socket
import struct

import numpy as np

#: The number of buffers; then come the sizes of the object and of each buffer.
_COUNT = struct.Struct("<Q")


def send(connection: socket.socket, value: object) -> None:
    """Send ``value``. Raises `OSError` if the other side has ended."""
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    parts: list[bytes | memoryview] = [content, *(each.raw() for each in buffers)]
    connection.sendall(struct.pack(f"<Q{len(parts)}Q", len(buffers), *(len(part) for part in parts)))
    for part in parts:
        connection.sendall(part)


def receive(connection: socket.socket) -> object:
    """Return what the other side sends. Raises `EOFError` or `OSError` if it has ended.

    Both sides are one program: what comes is trusted.
    """
    (count,) = _COUNT.unpack(_received(connection, _COUNT.size))
    sizes = struct.unpack(f"<{count + 1}Q", _received(connection, 8 * (count + 1)))
    content, *buffers = [_received(connection, size) for size in sizes]
    return pickle.loads(content, buffers=buffers)  # noqa: S301  (see there)


def _received(connection: socket.socket, size: int) -> memoryview:
    # Not filled with zeros first, as a bytearray would be.
    view = np.empty(size, np.uint8).data
    at = 0
    while at < size:
        count = connection.recv_into(view[at:])
        if not count:
            raise EOFError("the other side has ended")
        at += count
    return view

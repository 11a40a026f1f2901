"""The program of a worker process: it takes what it is to do first, then one message after the other."""

import socket
import sys
from collections.abc import Callable
from typing import Any, cast

from inferd.batch.processes.messages import receive, send

#: Returns the answer to a message. What it raises is sent as text.
Answer = Callable[[Any], object]


def main() -> None:
    """Serve the connection whose number is the first argument, until the other side has closed it or ended.

    The first message is called without arguments, and returns what answers the others.
    """
    connection = socket.socket(fileno=int(sys.argv[1]))
    answer = cast("Callable[[], Answer]", receive(connection))()
    send(connection, None)
    while True:
        try:
            message = receive(connection)
        except EOFError:
            return
        send(connection, _answered(answer, message))


def _answered(answer: Answer, message: object) -> object:
    try:
        return answer(message)
    except Exception as error:  # noqa: BLE001  (the other side decides)
        return f"{type(error).__name__}: {error}"

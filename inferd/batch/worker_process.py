"""Worker processes, which do a part of a job's work: a crash there ends the worker, and not the job.

The job's side is `WorkerProcess`; the worker runs `main`. They exchange pickled messages over a pair of sockets.
"""

import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import IO, Any, cast

import numpy as np

from inferd.batch.errors import BatchError

#: Answers one message in the worker. An exception is sent back as its text.
Answer = Callable[[Any], object]

#: The program of a worker: it finds modules where this process does.
_BOOTSTRAP = "import sys; sys.path[:] = sys.argv[2:]; from inferd.batch.worker_process import main; main()"

#: One core for each worker: `tokenizers` and numpy would use all cores in each.
_ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

#: How long a worker may take to end after its connection was closed.
_END_S = 10.0

#: A message begins with the number of its buffers; then come the sizes of the pickled object and of each buffer.
_COUNT = struct.Struct("<Q")


class ProcessFailedError(Exception):
    """A message got no answer: the work on it raised, or the process ended. The text says which."""


class WorkerProcess:
    """A process that calls ``begin`` once, and then its result with each message. All of these are pickled.

    Threads: one; any may `kill`. The process ends when its connection does, so it does not outlive this one. ``task``
    is used in errors, as in "a process that prepares rows". Raises `BatchError` if the process cannot be started.
    """

    def __init__(self, begin: Callable[[], Answer], task: str) -> None:
        self._process, self._connection = _started(task)
        with cast("IO[bytes]", self._process.stderr) as errors:
            try:
                send(self._connection, begin)
                receive(self._connection)
            except (EOFError, OSError):
                *_, reason = [b"", *errors.read().splitlines()]
                end = self._end()
                self.close()
                text = f"{end}: {reason.decode(errors='replace')}"
                raise BatchError(f"a process that {task} cannot start: {text}") from None

    def ask(self, message: object) -> object:
        """Return the answer to ``message``. Raises `ProcessFailedError`, after which the process may have ended."""
        try:
            send(self._connection, message)
            answer = receive(self._connection)
        except (EOFError, OSError):
            raise ProcessFailedError(self._end()) from None
        if isinstance(answer, str):
            raise ProcessFailedError(answer)
        return answer

    @property
    def is_alive(self) -> bool:
        """True until the process has ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process at once; a thread in `ask` gets a `ProcessFailedError`."""
        self._process.kill()

    def close(self) -> None:
        """End the process, and wait until it has ended."""
        self.kill()
        self._process.wait()
        self._connection.close()

    def _end(self) -> str:
        """Wait for the end of the process, and return how it ended."""
        # Without a connection it ends by itself, or is of no use.
        try:
            status = self._process.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            status = self._process.wait()
        if status >= 0:
            return f"the process ended with status {status}"
        hint = ", as it is when memory runs out" if -status == signal.SIGKILL else ""
        return f"the process was ended by {signal.Signals(-status).name}{hint}"


def _started(task: str) -> tuple["subprocess.Popen[bytes]", socket.socket]:
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(  # noqa: S603  (our own module)
                [sys.executable, "-c", _BOOTSTRAP, str(theirs.fileno()), *sys.path],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=os.environ | _ENVIRONMENT,
                # A terminal's Ctrl-C is for the job only, which finishes the part in hand.
                process_group=0,
            )
        except OSError as error:
            ours.close()
            raise BatchError(f"a process that {task} cannot start: {error.strerror}") from error
        return process, ours


def main() -> None:
    """Answer the messages of the connection whose file descriptor is the first argument, until it is closed.

    The first message is called without arguments, and returns the function that answers the others.
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
    except Exception as error:  # noqa: BLE001  (the job decides what it means)
        return f"{type(error).__name__}: {error}"


def send(connection: socket.socket, value: object) -> None:
    """Send ``value``, without a copy of large buffers. Raises `OSError` if the other side has ended."""
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    parts: list[bytes | memoryview] = [content, *(each.raw() for each in buffers)]
    connection.sendall(struct.pack(f"<Q{len(parts)}Q", len(buffers), *(len(part) for part in parts)))
    for part in parts:
        connection.sendall(part)


def receive(connection: socket.socket) -> object:
    """Return the value that the other side sends. Raises `EOFError` or `OSError` if it has ended.

    Both sides are one program, so the pickled content is trusted.
    """
    (count,) = _COUNT.unpack(_received(connection, _COUNT.size))
    sizes = struct.unpack(f"<{count + 1}Q", _received(connection, 8 * (count + 1)))
    content, *buffers = [_received(connection, size) for size in sizes]
    return pickle.loads(content, buffers=buffers)  # noqa: S301  (see above)


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

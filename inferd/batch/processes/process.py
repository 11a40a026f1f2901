"""One worker process, as the job sees it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import IO, cast

from inferd.batch.errors import BatchError
from inferd.batch.processes.messages import receive, send
from inferd.batch.processes.worker import Answer

#: The process finds the modules that this one has found.
_BOOTSTRAP = "import sys; sys.path[:] = sys.argv[2:]; from inferd.batch.processes.worker import main; main()"

#: Each process has one core: `tokenizers` would use all in each, and so would what numpy computes with.
_ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


#: How long a process whose connection has ended may take to end.
_END_S = 10.0


class ProcessFailedError(Exception):
    """A message has no answer: the work on it raises, or the process has ended. The text says which."""


class WorkerProcess:
    """A process that calls ``begin``, and with what that returns answers messages; all of them can be pickled.

    One thread, but any may `kill`. The process ends when its connection does, so that it does not outlive this one.
    ``task`` says in errors what it does, as in "prepares rows". Raises `BatchError` if it cannot be started.
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
        """Return the answer to ``message``. Raises `ProcessFailedError`; the process may have ended then."""
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
        """Whether the process has not ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process at once; who waits for it has an error."""
        self._process.kill()

    def close(self) -> None:
        """End the process, and wait until it has ended."""
        self.kill()
        self._process.wait()
        self._connection.close()

    def _end(self) -> str:
        # Its connection has ended, so it is ending too, or else it is no use.
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
                # A terminal's Ctrl-C is for the job, which finishes what it has begun.
                process_group=0,
            )
        except OSError as error:
            ours.close()
            raise BatchError(f"a process that {task} cannot start: {error.strerror}") from error
        return process, ours

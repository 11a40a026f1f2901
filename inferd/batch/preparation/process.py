"""One process that prepares columns."""

import os
import signal
import socket
import subprocess
import sys
from typing import IO, cast

import pyarrow as pa

from inferd.batch.errors import BatchError
from inferd.batch.ports import Preparation, Prepared
from inferd.batch.preparation.messages import receive, send
from inferd.batch.preparation.worker import packed

#: The process finds the modules that this one has found.
_BOOTSTRAP = "import sys; sys.path[:] = sys.argv[2:]; from inferd.batch.preparation.worker import main; main()"

#: Each process has one core: `tokenizers` would use all in each, and so would what numpy computes with.
_ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


#: How long a process whose connection has ended may take to end.
_END_S = 10.0


class PreparationFailedError(Exception):
    """The preparation of a column raises, or its process ends. The text says which."""


class PreparationProcess:
    """A process that runs ``preparation``. One thread, but any may `kill`.

    It ends when its connection does, so that it does not outlive this process, however this one ends.
    """

    def __init__(self, preparation: Preparation) -> None:
        self._process, self._connection = _started()
        with cast("IO[bytes]", self._process.stderr) as errors:
            try:
                send(self._connection, preparation)
                receive(self._connection)
            except (EOFError, OSError):
                *_, reason = [b"", *errors.read().splitlines()]
                end = self._end()
                self.close()
                text = f"{end}: {reason.decode(errors='replace')}"
                raise BatchError(f"a process that prepares rows cannot start: it {text}") from None

    def prepared(self, column: pa.Array) -> Prepared:
        """Return the tensors of ``column``. Raises `PreparationFailedError`; the process may have ended then."""
        try:
            send(self._connection, packed(column))
            answer = cast("Prepared | str", receive(self._connection))
        except (EOFError, OSError):
            raise PreparationFailedError(f"the process that prepares it {self._end()}") from None
        if isinstance(answer, str):
            raise PreparationFailedError(answer)
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
            return f"ended with status {status}"
        hint = ", as it is when memory runs out" if -status == signal.SIGKILL else ""
        return f"was ended by {signal.Signals(-status).name}{hint}"


def _started() -> tuple["subprocess.Popen[bytes]", socket.socket]:
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
            raise BatchError(f"a process that prepares rows cannot start: {error.strerror}") from error
        return process, ours

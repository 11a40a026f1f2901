"""Start, limit, reuse and end the processes that open model files before the server does."""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple, cast

from inferd.config.settings import ModelSettings
from inferd.models.probe_process import receive, send
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.resources import available_bytes, resident_bytes, usable_bytes

#: The process gets the module path of this one.
_BOOTSTRAP = "import sys; sys.path[:] = sys.argv[2:]; from inferd.models.probe_process import main; main()"

#: Wait for a process after which another one is started: the others are busy with large files, or hang.
_PATIENCE_S = 1.0

#: How long a process without work is kept.
_IDLE_S = 30.0

#: Interval of checks of time and memory.
_TICK_S = 0.01
#: Between two looks at how long its threads have waited for a processor.
_WAITS_EVERY_S = 0.1

#: Larger files get more time: network storage is slow.
_LEAST_BYTES_PER_S = 20e6

#: One part in this many of all memory is reserved for the server. A file of any size may take the second number.
_RESERVED_SHARE = 16
_LEAST_BYTES = 64 * 1024 * 1024

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

#: Signals that the process causes itself; others come from outside.
_FAULTS = {
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSEGV,
    signal.SIGSYS,
    signal.SIGTRAP,
}


class NoProcessError(Exception):
    """The process cannot be started, or ends before its first file. The text says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The outcome of opening a file in a process.

    ``failure``: why the server must not open it; empty if it may. ``is_crash``: the file is the cause. ``weights`` are
    the fingerprints of its weight files, None if the process did not report them. ``is_over``: the process is idle
    again.
    """

    failure: str = ""
    is_crash: bool = False
    weights: Mapping[str, str] | None = None
    is_over: bool = True


class _Process:
    """One process, used by one thread at a time."""

    def __init__(self, process: "subprocess.Popen[bytes]", connection: socket.socket) -> None:
        self._process = process
        self._connection = connection

    @classmethod
    def start(cls) -> "_Process":
        """Start the process and wait until it is ready. Raises `NoProcessError`."""
        connection, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-c", _BOOTSTRAP, str(theirs.fileno()), *sys.path]
            try:
                process = subprocess.Popen(  # noqa: S603  (our own module)
                    command,
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    # A terminal's Ctrl-C is for the server. A session of its own would have a share of the processors
                    # of its own where Linux groups processes by sessions (sched_autogroup), however nice it is.
                    process_group=0,
                )
            except OSError as error:
                connection.close()
                raise NoProcessError(error.strerror or str(error)) from error
        started = cls(process, connection)
        is_ready = receive(connection) is not None
        with cast("IO[bytes]", process.stderr) as errors:
            if is_ready:
                return started
            *_, reason = [b"", *errors.read().splitlines()]
        started.close()
        raise NoProcessError(f"it ended with status {process.returncode}: {reason.decode(errors='replace')}")

    def open(self, path: Path, settings: ModelSettings, timeout_s: float, is_cancelled: Callable[[], bool]) -> Outcome:
        """Open ``path`` in the process. Close the process after a failure, or if the outcome is not ``is_over``.

        Trial runs after opening have the same limits, but exceeding them is no failure: the server may do them.
        """
        limits = _Limits(timeout_s, path.stat().st_size, self._own_bytes(), self._process.pid)
        weights: Mapping[str, str] | None = None
        is_open = False
        try:
            send(self._connection, {"path": str(path), "settings": settings.model_dump(mode="json")})
        except ConnectionError:
            return self._ended(None)
        while True:
            if not self._has_message():
                failure = "the load was cancelled" if is_cancelled() else limits.exceeded(self._own_bytes())
                if failure:
                    return Outcome(weights=weights, is_over=False) if is_open else Outcome(failure=failure)
                continue
            message = receive(self._connection)
            if message is None:
                return self._ended(weights)
            if "ended" in message:
                return Outcome(weights=weights)
            if "opened" in message:
                is_open = True
            else:
                weights = message["weights"]
                limits.add_bytes(message["bytes"])

    def is_alive(self) -> bool:
        """Return True if the process has not ended by itself."""
        return self._process.poll() is None

    def close(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()
        self._connection.close()
        cast("IO[bytes]", self._process.stdin).close()

    def _has_message(self) -> bool:
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        return bool(poll.poll(_TICK_S * 1000))

    def _own_bytes(self) -> int:
        """Return the memory of the process without mapped files; 0 if it has ended."""
        try:
            fields = Path(f"/proc/{self._process.pid}/statm").read_text().split()
        except OSError:
            return 0
        return (int(fields[1]) - int(fields[2])) * _PAGE_BYTES

    def _ended(self, weights: Mapping[str, str] | None) -> Outcome:
        status = self._process.wait()
        if status >= 0:
            return Outcome(failure=f"the process that opened it ended with status {status}")
        name = signal.Signals(-status).name
        if -status in _FAULTS:
            return Outcome(
                failure=f"the model's file crashes ONNX Runtime: signal {name}", is_crash=True, weights=weights
            )
        hint = ", as it is when memory runs out" if -status == signal.SIGKILL else ""
        return Outcome(failure=f"the process that opened it was ended by {name}{hint}")


class _Limits:
    """Limits for opening one file: time by the file's size, and the available memory.

    The time that the process waits for a processor does not count: on a busy server, others go first. It is the longest
    wait of a thread between two looks, as threads wait for each other too; what they have run counts in any case.
    """

    def __init__(self, timeout_s: float, size: int, own_bytes: int, pid: int) -> None:
        self._started = self._looked_at = time.monotonic()
        self._pid = pid
        self._threads = _processor_times(pid)
        self._waited_s = self._ran_s = 0.0
        self._timeout_s = timeout_s + size / _LEAST_BYTES_PER_S
        usable = usable_bytes()
        spare = available_bytes(resident_bytes(), usable) - usable // _RESERVED_SHARE
        self._growth = max(spare, _LEAST_BYTES)
        self._most_bytes = own_bytes + self._growth

    def add_bytes(self, size: int) -> None:
        """Extend the time limit for ``size`` more bytes."""
        self._timeout_s += size / _LEAST_BYTES_PER_S

    def exceeded(self, own_bytes: int) -> str:
        """Return the error for an exceeded limit; empty if none is."""
        if own_bytes > self._most_bytes:
            return f"opening it needs more than {self._growth} bytes of memory"
        now = time.monotonic()
        if now - self._looked_at >= _WAITS_EVERY_S:
            self._look(now)
        if min(now - self._started, max(now - self._started - self._waited_s, self._ran_s)) > self._timeout_s:
            return f"opening it took longer than {self._timeout_s:.3g} s (repository.probe_timeout_s)"
        return ""

    def _look(self, now: float) -> None:
        """Add what the threads of the process have waited and run since the last look."""
        before, self._threads, self._looked_at = self._threads, _processor_times(self._pid), now
        since = [each.since(before.get(name, _NO_TIMES)) for name, each in self._threads.items()]
        self._waited_s += max((each.waited_s for each in since), default=0.0)
        self._ran_s += sum(each.ran_s for each in since)


class _ProcessorTimes(NamedTuple):
    """How long a thread has run on a processor, and waited for one."""

    ran_s: float
    waited_s: float

    def since(self, before: "_ProcessorTimes") -> "_ProcessorTimes":
        return _ProcessorTimes(self.ran_s - before.ran_s, self.waited_s - before.waited_s)


_NO_TIMES = _ProcessorTimes(0.0, 0.0)


def _processor_times(pid: int) -> dict[str, _ProcessorTimes]:
    """Return the times of each thread of a process."""
    times = {}
    with suppress(OSError):  # it has ended
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError, ValueError):  # the thread has ended, or the kernel does not count
                ran, waited, _ = (int(field) / 1e9 for field in (thread / "schedstat").read_text().split())
                times[thread.name] = _ProcessorTimes(ran, waited)
    return times


class ProbePool:
    """At most ``most`` processes, one at first.

    Another one is started when all have been busy for a second; idle ones end after `_IDLE_S`. Any thread may open
    files, and waits for its own outcome; `stop` makes that a failure.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._idle: list[_Process] = []
        self._busy = 0
        self._wanted = 1
        self._is_starting = False
        self._stopping = False
        self._end_idle: threading.Timer | None = None

    def open(self, path: Path, settings: ModelSettings, timeout_s: float, is_cancelled: Callable[[], bool]) -> Outcome:
        """Open ``path`` in a process, and return the outcome.

        Raises `NoProcessError`, `OSError` if there is no such file, and `ModelLoadError` after `stop`.
        """
        process = self._acquire() or self._start()
        keep = False
        try:
            outcome = process.open(path, settings, timeout_s, lambda: self._stopping or is_cancelled())
            keep = outcome.is_over and not outcome.failure
            return outcome
        finally:
            self._release(process, keep=keep)

    def stop(self) -> None:
        """End all processes; calls of `open` end with a failure soon."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            if self._end_idle is not None:
                self._end_idle.cancel()
        self._close_idle()

    def _acquire(self) -> _Process | None:
        """Wait for an idle process, and occupy it; return None if the caller has to start another one."""
        with self._changed:
            waited = False
            while True:
                if self._stopping:
                    raise ModelLoadError("the server is stopping")
                while self._idle:
                    process = self._idle.pop()
                    if process.is_alive():
                        self._occupy()
                        return process
                    process.close()
                if waited and self._busy < self._most:
                    self._wanted = max(self._wanted, self._busy + 1)
                if self._busy < self._wanted and not self._is_starting:
                    self._is_starting = True
                    self._occupy()
                    return None
                waited = not self._changed.wait(_PATIENCE_S)

    def _occupy(self) -> None:
        self._busy += 1
        if self._end_idle is not None:
            self._end_idle.cancel()
            self._end_idle = None

    def _start(self) -> _Process:
        process = None
        try:
            process = _Process.start()
            return process
        finally:
            with self._changed:
                self._is_starting = False
                self._busy -= process is None
                self._changed.notify_all()

    def _release(self, process: _Process, *, keep: bool) -> None:
        if not keep:
            process.close()
        with self._changed:
            self._busy -= 1
            if keep:
                self._idle.append(process)
            if self._idle and not self._busy:
                self._end_idle = threading.Timer(_IDLE_S, self._close_idle)
                self._end_idle.name = "model-probe-timer"
                self._end_idle.daemon = True
                self._end_idle.start()
            self._changed.notify()

    def _close_idle(self) -> None:
        with self._changed:
            idle, self._idle = self._idle, []
            self._wanted = 1
        for process in idle:
            process.close()

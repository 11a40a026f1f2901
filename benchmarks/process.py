"""Processes of servers and load generators: placement, processor time and shutdown."""

import os
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

#: Below the kernel's range for outgoing connections.
_PORTS = range(20_000, 32_000)
_SHARED_MEMORY = Path("/dev/shm")
_SAMPLE_EVERY_S = 0.25
#: Excluded at both ends of a measurement, when the load generator starts and stops.
_EDGE_S = 1.0
_LOAD_TIMEOUT_S = 600
_STOP_TIMEOUT_S = 40


class Placement(StrEnum):
    """Where server and load generator run."""

    UNPINNED = "unpinned"
    PINNED = "pinned"

    @property
    def server(self) -> list[str]:
        """Prefix of the server's command."""
        return ["taskset", "-c", "0"] if self is Placement.PINNED else []

    @property
    def load_core(self) -> int | None:
        """The core of the load generator, or None."""
        return 1 if self is Placement.PINNED else None

    @property
    def load(self) -> list[str]:
        """Prefix of the load generator's command."""
        return [] if self.load_core is None else ["taskset", "-c", str(self.load_core)]

    @property
    def server_cores(self) -> int:
        """Number of cores that the server may use."""
        return 1 if self is Placement.PINNED else len(os.sched_getaffinity(0))


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """Results of a load generator. ``errors`` counts failed requests."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int = 0


def free_port() -> int:
    """Return a free port."""
    for _ in _PORTS:
        port = _PORTS.start + int.from_bytes(os.urandom(2)) % len(_PORTS)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    msg = f"no free port among {_PORTS}"
    raise RuntimeError(msg)


def run_load(command: Sequence[str], placement: Placement, environment: Mapping[str, str] | None = None) -> str:
    """Run a load generator to its end, and return its output."""
    done = subprocess.run(
        [*placement.load, *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_LOAD_TIMEOUT_S,
        check=False,
    )
    return done.stdout


class Server:
    """A server's process and its children. The end of the context stops all of them.

    With ``killed_leaving`` they are not asked to end but killed, and the files in shared memory whose names begin like
    that are removed. It is for servers that would first do all that they were ever asked for.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, *, killed_leaving: str | None = None
    ) -> None:
        self._command = command
        self._environment = environment
        self._folder = folder
        self._killed_leaving = killed_leaving
        self._log = folder / "server.log"

    def __enter__(self) -> Self:
        """Start it; `wait_ready` waits until it serves."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                env={**os.environ, **self._environment},
                cwd=self._folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it, and kill what is left of it."""
        tree = self.tree()
        self._process.send_signal(signal.SIGKILL if self._killed_leaving else signal.SIGTERM)
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for process in tree:
            if process.is_running():
                process.kill()
        psutil.wait_procs(tree, timeout=5)
        # After a crash, its children have another parent.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._killed_leaving:
            for path in _SHARED_MEMORY.glob(f"{self._killed_leaving}*"):
                path.unlink()

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def ended_with(self) -> int | None:
        """Its exit code, or the negative number of a signal; None while it runs."""
        return self._process.poll()

    @property
    def log(self) -> str:
        """The end of its output."""
        return self._log.read_text(errors="replace")[-3000:]

    def wait_ready(self, check: Callable[[], object], timeout_s: float = 90) -> None:
        """Repeat ``check`` until it passes. Raises its error after ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        while True:
            if self._process.poll() is not None:
                msg = f"{shlex.join(self._command)} ended with {self._process.returncode}:\n{self.log}"
                raise RuntimeError(msg)
            try:
                check()
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def tree(self) -> list[psutil.Process]:
        """Return the process and its descendants."""
        try:
            root = psutil.Process(self.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu_s(self) -> float:
        """Return the processor time of the tree, user and system."""
        total = 0.0
        for process in self.tree():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total

    def rss_bytes(self) -> int:
        """Return the resident set of the tree; pages that processes share count for each."""
        total = 0
        for process in self.tree():
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total


class Meter:
    """Samples a server's processor time while the context is open."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._samples: list[tuple[float, float]] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> Self:
        """Start sampling."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop sampling."""
        self._stopped.set()
        self._thread.join()

    @property
    def cores_used(self) -> float:
        """Processor seconds per second, without both ends of the measurement."""
        begin, end = self._samples[0][0] + _EDGE_S, self._samples[-1][0] - _EDGE_S
        inner = [sample for sample in self._samples if begin <= sample[0] <= end] or self._samples
        (started, before), (stopped, after) = inner[0], inner[-1]
        return (after - before) / max(stopped - started, 1e-9)

    def _sample(self) -> None:
        while True:
            self._samples.append((time.perf_counter(), self._server.cpu_s()))
            if self._stopped.wait(_SAMPLE_EVERY_S):
                return

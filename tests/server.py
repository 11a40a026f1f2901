"""A real inferd process for tests: started as by a user, on free ports, with its log."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE_S

START_TIMEOUT_S = PATIENCE_S
STOP_TIMEOUT_S = PATIENCE_S

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


class ServerProcess:
    """An ``inferd serve`` process. ``log`` grows while it runs; a thread reads it line by line."""

    def __init__(
        self,
        *arguments: str | Path,
        environment: Mapping[str, str] | None = None,
        folder: Path = ROOT,
        grpc_port: int = 0,
        prefix: Sequence[str] = (),
        program: Sequence[str | Path] = (BIN / "inferd",),
    ) -> None:
        ports = ("--grpc-port", str(grpc_port), "--http-port", "0", "--metrics-port", "0")
        command = [*prefix, *map(str, program), "serve", *map(str, arguments), *ports]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd=folder,
            text=True,
        )
        self.log: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_ready(self) -> None:
        """Wait for the line with the addresses."""
        ready = self.wait_event("ready")
        self.grpc, self.http = ready["grpc"], ready["metrics"]
        #: The address of inference over HTTP; None if it is off.
        self.rest = ready.get("http")

    def wait_event(self, event: str, **fields: object) -> dict[str, Any]:
        """Return the next log line for ``event`` with ``fields``; fail with the whole log if the process ends first."""
        while True:
            try:
                line = self._lines.get(timeout=START_TIMEOUT_S)
            except queue.Empty:
                raise AssertionError(f"{event!r} has not come:\n{self.text}") from None
            if line is None:
                raise AssertionError(f"the server ended before {event!r}:\n{self.text}")
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if found.get("event") == event and all(found.get(name) == value for name, value in fields.items()):
                return found

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the process to end and return its exit status; the log is complete then."""
        status = self.process.wait(STOP_TIMEOUT_S)
        self._reader.join(STOP_TIMEOUT_S)
        return status

    @property
    def text(self) -> str:
        """All its output so far."""
        return "".join(self.log)

    def events(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of ``event`` so far."""
        lines = [json.loads(line) for line in self.log if line.startswith("{")]
        return [line for line in lines if line.get("event") == event]

    def resident_bytes(self) -> int:
        """Return the resident set of the process."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the process has ended")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log.append(line)
            self._lines.put(line)
        self.process.stdout.close()
        self._lines.put(None)


@contextmanager
def serving(
    *arguments: str | Path, environment: Mapping[str, str] | None = None, folder: Path = ROOT
) -> Iterator[ServerProcess]:
    """Run a ready server in ``folder``, and stop it afterwards, whatever happens."""
    server = ServerProcess(*arguments, environment=environment, folder=folder)
    try:
        server.wait_ready()
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.wait()

"""The image as a container of podman, restricted as in clusters with the restricted Pod Security Standard."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.patience import eventually
from tests.server import BIN

IMAGE = os.environ.get("IMAGE", "inferd:dev")

# runc and cgroupfs, because these work inside other containers as well.
_PODMAN = ("podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs", "--log-level", "fatal")

#: Read-only, without capabilities, with limited memory, in the host's network.
_CONFINED = (
    "--read-only",
    "--read-only-tmpfs=false",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--memory=512m",
    "--network=host",
    "--ulimit=nofile=4096:4096",
    "--ulimit=nproc=4096:4096",
    "--stop-timeout=30",
)


def podman(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a podman command."""
    return subprocess.run([*_PODMAN, *arguments], capture_output=True, text=True, timeout=60, check=check)


class Container:
    """A running container."""

    def __init__(self, name: str) -> None:
        self.name = name
        events = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        (ready,) = (event for event in events if event["event"] == "ready")
        self.grpc = "127.0.0.1:" + ready["grpc"].rpartition(":")[2]

    def log(self) -> str:
        """Return its output so far."""
        return podman("logs", self.name).stdout

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it; does not raise for its exit status."""
        return podman("exec", self.name, *command, check=False)

    def grpcurl(self, *arguments: str, request: str = "{}") -> subprocess.CompletedProcess[str]:
        """Call it from outside."""
        command = [str(BIN / "grpcurl"), "-plaintext", "-d", "@", self.grpc, *arguments]
        return subprocess.run(command, input=request, capture_output=True, text=True, timeout=30, check=False)

    def stop(self) -> int:
        """Stop it as an orchestrator does, and return its exit status."""
        podman("stop", self.name)
        return int(podman("inspect", self.name, "--format", "{{.State.ExitCode}}").stdout)


@contextmanager
def running(*arguments: str) -> Iterator[Container]:
    """Run the image with additional ``arguments`` of inferd until the block ends."""
    ports = ("--env=INFERD_SERVER__GRPC_PORT=0", "--env=INFERD_SERVER__METRICS_PORT=0")
    name = podman("run", "--detach", *_CONFINED, *ports, IMAGE, *arguments).stdout.strip()
    try:
        eventually(lambda: '"event":"ready"' in podman("logs", name).stdout, "the container is ready")
        yield Container(name)
    finally:
        podman("rm", "--force", "--time", "0", name)

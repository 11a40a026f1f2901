"""The machine and the versions of a measurement."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import onnxruntime

from benchmarks.models import ROOT

_PACKAGES = ("grpcio", "numpy", "protobuf")


def describe() -> dict[str, object]:
    """Return what is written beside results."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_bytes / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        # ONNX Runtime's build for GPUs has another package name.
        "packages": {name: version(name) for name in _PACKAGES} | {"onnxruntime": onnxruntime.__version__},
        "commit": _commit(),
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"

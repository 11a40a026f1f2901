"""The server under attack, and the resources of its process."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.hostile import models
from benchmarks.models import MODELS
from benchmarks.process import Server, free_port
from benchmarks.servers import without_http

_METRICS_TIMEOUT_S = 10
#: Resets the peak of the resident set; see proc_pid_clear_refs(5).
_RESET_PEAK = "5"
_LIVE_CALLS = "inferd_inflight_requests"


@dataclass(frozen=True, kw_only=True, slots=True)
class Holdings:
    """Resources of an idle process. ``calls`` are open ones."""

    descriptors: int
    threads: int
    calls: int
    rss_mib: float

    def exceeds(self, other: "Holdings") -> bool:
        """Return whether any resource other than memory exceeds that of the other."""
        return self.descriptors > other.descriptors or self.threads > other.threads or self.calls > other.calls


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A server of ``tree`` that answers at ``port``."""

    server: Server
    port: int
    metrics_port: int

    @property
    def has_ended(self) -> bool:
        """Whether its process has ended."""
        return self.server.ended_with is not None

    @property
    def rss_bytes(self) -> int:
        """Its resident set."""
        return self._status("VmRSS")

    @property
    def peak_rss_bytes(self) -> int:
        """The peak of its resident set since `reset_peak`."""
        return self._status("VmHWM")

    def reset_peak(self) -> None:
        """Reset the peak of the resident set."""
        Path(f"/proc/{self.server.pid}/clear_refs").write_text(_RESET_PEAK)

    def holdings(self) -> Holdings:
        """Return its present resources."""
        proc = Path(f"/proc/{self.server.pid}")
        return Holdings(
            descriptors=len(list((proc / "fd").iterdir())),
            threads=len(list((proc / "task").iterdir())),
            calls=round(self._metric(_LIVE_CALLS)),
            rss_mib=self.rss_bytes / 2**20,
        )

    def _metric(self, name: str) -> float:
        with urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=_METRICS_TIMEOUT_S) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        return next(family.samples[0].value for family in families if family.name == name)

    def _status(self, name: str) -> int:
        for line in Path(f"/proc/{self.server.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
        msg = f"the server has ended with {self.server.ended_with}:\n{self.server.log}"
        raise RuntimeError(msg)


@contextmanager
def serving(tree: Path, environment: Mapping[str, str]) -> Iterator[Target]:
    """Serve the built-in model and those of this benchmark with the code in ``tree``; stops the server on exit."""
    with TemporaryDirectory() as name:
        folder, port, metrics_port = Path(name), free_port(), free_port()
        command = [sys.executable, "-m", "inferd", "serve", str(MODELS["digits"].folder)]
        command += map(str, models.write(folder / "models"))
        command += ["--grpc-port", str(port), "--metrics-port", str(metrics_port)]
        command += without_http(tree)
        with Server(command, {"PYTHONPATH": str(tree), **environment}, folder) as server:
            server.wait_ready(
                lambda: urlopen(f"http://127.0.0.1:{metrics_port}/readyz", timeout=_METRICS_TIMEOUT_S).close()
            )
            yield Target(server=server, port=port, metrics_port=metrics_port)

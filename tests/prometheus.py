"""A real Prometheus for tests, installed by `scripts/tools.sh`."""

import json
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.patience import PATIENCE_S, eventually
from tests.server import ROOT

PROMETHEUS = ROOT / ".tools/bin/prometheus"
PROMTOOL = ROOT / ".tools/bin/promtool"
RULES = ROOT / "helm/inferd/rules"

#: Of scrapes and evaluations, and the timeout of a scrape: 500 ms.
INTERVAL_S = 0.5

_SUFFIXES = ("_bucket", "_sum", "_count")


def metrics_in(expr: str) -> set[str]:
    """Return the names of inferd's metrics in an expression, without the suffixes of histograms."""
    names = set(re.findall(r"\binferd_\w+", expr))
    return {name.removesuffix(next((end for end in _SUFFIXES if name.endswith(end)), "")) for name in names}


class Prometheus:
    """A Prometheus that scrapes one server twice a second and evaluates the rules as often."""

    def __init__(self, folder: Path, target: str) -> None:
        self.address = ""
        config = {
            "global": dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), "500ms"),
            "rule_files": [str(RULES / "*.yaml")],
            "scrape_configs": [{"job_name": "inferd", "static_configs": [{"targets": [target]}]}],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        command = [PROMETHEUS, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
        command += ["--web.listen-address=127.0.0.1:0", "--enable-feature=exemplar-storage"]
        self._log = folder / "log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        eventually(self._answers, "prometheus answers")

    def get(self, path: str, **query: str) -> Any:
        """Call the HTTP API; an error fails the test with its message."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from error

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Return the present result of an expression."""
        return self.get("query", query=expr)["result"]

    def wait_scraped(self, times: int) -> None:
        """Wait for this many scrapes of the server, without those that took too long."""
        expr = f"sum(sum_over_time(up{{job='inferd'}}[5m])) >= {times}"
        eventually(lambda: bool(self.query(expr)), f"{times} scrapes")

    def stop(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait(PATIENCE_S)

    def _answers(self) -> bool:
        log = self._log.read_text()
        assert self._process.poll() is None, f"prometheus has ended:\n{log}"
        listening = re.search(r'"Listening on" address=(\S+)', log)
        if listening is None:
            return False
        self.address = listening[1]
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=1):
                return True
        except OSError:
            return False


@contextmanager
def scraping(folder: Path, target: str) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes ``target``, and stop it afterwards."""
    prometheus = Prometheus(folder, target)
    try:
        yield prometheus
    finally:
        prometheus.stop()

"""Floods of unauthenticated callers: authenticated ones are answered, and nothing leaks."""

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from inferd import demo
from inferd.client import TLS, Client
from inferd.security.authentication.bearer_tokens import StoredToken, format_entry, hash_token
from tests.certificates import LOCAL_NAMES, Authority
from tests.flood import KEPT_OPEN
from tests.load import MIB, descriptor_count, metric
from tests.patience import PATIENCE_S, eventually
from tests.server import ROOT, ServerProcess, serving

_TOKEN = "inferd_of-a-test"
#: Per second.
_CALLERS_PER_S = 300
_CALLERS = 2
_CALLS = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flood")
    authority = Authority()
    authority.save(folder)
    authority.issue(*LOCAL_NAMES).save(folder)
    (folder / "tokens.yaml").write_text(format_entry(StoredToken(name="alice", sha256=hash_token(_TOKEN))))
    return folder


@pytest.fixture(scope="module")
def server(folder) -> Iterator[ServerProcess]:
    settings = {
        "security.tls.cert_file": folder / "server.pem",
        "security.tls.key_file": folder / "server.key",
        "security.metrics_tls": "false",
        "security.tokens_file": folder / "tokens.yaml",
        "log.access": "false",
    }
    with serving(*(part for name, value in settings.items() for part in ("--set", f"{name}={value}"))) as running:
        yield running


@contextmanager
def flood(server: ServerProcess, folder) -> Iterator[dict[str, int]]:
    """Start a flood of unauthenticated callers; return its counts at the end."""
    command = [sys.executable, "-m", "tests.flood", server.grpc, str(folder / "ca.pem"), str(_CALLERS_PER_S)]
    counts: dict[str, int] = {}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        try:
            yield counts
        finally:
            counts.update(json.loads(process.communicate(b"\n", timeout=PATIENCE_S)[0]))


def durations(server: ServerProcess, folder) -> list[float]:
    """Call many times with a credential, and return the durations of the calls in seconds."""
    taken: list[float] = []
    picture = {"X": demo.samples().inputs[:1]}

    def work() -> None:
        with Client(server.grpc, tls=TLS(ca=folder / "ca.pem"), token=_TOKEN, retry=None) as client:
            client.infer("digits", picture)
            for _ in range(_CALLS):
                began = time.perf_counter()
                client.infer("digits", picture)
                taken.append(time.perf_counter() - began)

    threads = [threading.Thread(target=work) for _ in range(_CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken


def test_authenticated_callers_are_answered(server, folder, record_property):
    """Over old and new connections; memory of the flood is reused, and a second flood takes no more."""
    alone = durations(server, folder)
    eventually(lambda: metric(server, "inferd_inflight_requests") == 0, "no calls are left")
    descriptors, resident = descriptor_count(server), server.resident_bytes()
    for most_growth in (64 * MIB, 16 * MIB):
        with flood(server, folder) as counts:
            eventually(lambda: descriptor_count(server) > descriptors + 0.9 * KEPT_OPEN, "as many as may stay are open")
            amid = durations(server, folder)
            before, resident = resident, server.resident_bytes()
        assert len(alone) == len(amid) == _CALLERS * _CALLS
        assert {"silent", "half_a_handshake", "garbage", "whole_handshake", "no_token", "wrong_token"} <= counts.keys()
        assert counts.get("shut out", 0) == 0
        eventually(lambda: descriptor_count(server) <= descriptors, f"{descriptors} descriptors again")
        assert resident - before < most_growth
    for name, taken in (("alone", alone), ("amid", amid)):
        cuts = statistics.quantiles(taken, n=100)
        record_property(name, f"p50 {cuts[49] * 1e3:.2f} ms, p99 {cuts[98] * 1e3:.2f} ms")

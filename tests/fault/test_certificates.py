"""Certificates that are replaced under load."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from inferd import demo
from inferd.client import TLS, Client, InferdError, Unavailable
from tests.certificates import LOCAL_NAMES, Authority, Files
from tests.load import metric
from tests.patience import PATIENCE_S, eventually
from tests.server import ServerProcess, serving

_WORKERS = 4
_CALLS_PER_CONNECTION = 20
_REPLACEMENTS = 3


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def files(authority, folder) -> Files:
    authority.save(folder)
    return authority.issue(*LOCAL_NAMES).save(folder)


@pytest.fixture(scope="module")
def server(files) -> Iterator[ServerProcess]:
    """The built-in model behind TLS, with metrics without TLS."""
    pair = (f"security.tls.cert_file={files.certificate}", "--set", f"security.tls.key_file={files.key}")
    with serving("--set", *pair, "--set", "security.metrics_tls=false") as running:
        yield running


class Callers:
    """Threads that call all the time, half of them over one connection and half over new ones."""

    def __init__(self, address: str, ca: Path) -> None:
        self._address, self._ca = address, ca
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(None if number % 2 else _CALLS_PER_CONNECTION,))
            for number in range(_WORKERS)
        ]
        self.answered = [0] * _WORKERS
        self.errors: list[InferdError] = []

    @contextmanager
    def at_work(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join()

    def _work(self, calls_per_connection: int | None) -> None:
        number = self._threads.index(threading.current_thread())
        picture = {"X": demo.samples().inputs[:1]}
        try:
            while not self._over.is_set():
                with Client(self._address, tls=TLS(ca=self._ca), retry=None) as client:
                    calls = 0
                    while not self._over.is_set() and calls != calls_per_connection:
                        client.infer("digits", picture)
                        calls += 1
                        self.answered[number] += 1
        except InferdError as error:
            self.errors.append(error)


def _shown(server: ServerProcess, authority: Authority) -> int | None:
    """Return the serial number of the certificate that a new connection gets."""
    host, port = server.grpc.rsplit(":", 1)
    trusting = ssl.create_default_context(cadata=authority.pem.decode())
    trusting.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, int(port)), timeout=PATIENCE_S) as raw,
        trusting.wrap_socket(raw, server_hostname="localhost") as connection,
    ):
        certificate = connection.getpeercert()
        return None if certificate is None else int(str(certificate["serialNumber"]), 16)


@pytest.mark.parametrize("at_once", [True, False], ids=["together", "key first, certificate later"])
def test_replaced_under_load(server, authority, folder, at_once):
    """Every call is answered, over old connections and new ones, and the new certificate is used soon."""
    callers = Callers(server.grpc, folder / "ca.pem")
    before = metric(server, "inferd_file_reload_failures_total", file="tls")
    with callers.at_work():
        for _ in range(_REPLACEMENTS):
            pair = authority.issue(*LOCAL_NAMES)
            if not at_once:
                failures = metric(server, "inferd_file_reload_failures_total", file="tls")
                (folder / "server.key").write_bytes(pair.key)
                eventually(
                    lambda before=failures: metric(server, "inferd_file_reload_failures_total", file="tls") > before,
                    "the half is noticed",
                )
            pair.save(folder)
            eventually(lambda new=pair: _shown(server, authority) == new.serial_number, "the new certificate is shown")
            answered = list(callers.answered)
            eventually(
                lambda before=answered: all(
                    now > then + 20 for now, then in zip(callers.answered, before, strict=True)
                ),
                "all callers go on",
            )
    assert callers.errors == []
    refused = metric(server, "inferd_file_reload_failures_total", file="tls") - before
    assert refused == (0 if at_once else _REPLACEMENTS), "files that are written one after the other are read together"


def test_invalid_files_change_nothing(server, authority, folder):
    """They are logged and counted, and calls continue; a valid file still takes effect."""
    before = _shown(server, authority)
    failures = metric(server, "inferd_file_reload_failures_total", file="tls")
    (folder / "server.pem").write_text("oops")
    reason = f"{folder}/server.pem: expected certificates in PEM, got a file that is not PEM"
    server.wait_event("file reload rejected; keeping the previous content", reason=reason)
    assert metric(server, "inferd_file_reload_failures_total", file="tls") == failures + 1
    assert _shown(server, authority) == before
    pair = authority.issue(*LOCAL_NAMES)
    pair.save(folder)
    eventually(lambda: _shown(server, authority) == pair.serial_number, "the good one is shown")
    with Client(server.grpc, tls=TLS(ca=folder / "ca.pem"), retry=None) as client:
        assert client.is_ready()


def test_without_tls(server):
    """A client without TLS gets no answer."""
    with Client(server.grpc, retry=None) as client, pytest.raises(Unavailable):
        client.infer("digits", {"X": demo.samples().inputs[:1]})

"""SIGHUP changes log settings, and nothing else."""

import signal
from concurrent.futures import ThreadPoolExecutor

from inferd import demo
from inferd.client import Client
from tests.server import ServerProcess, serving

#: Read here, because several threads should not parse NumPy's files at once (CPython 3.11).
PICTURE = {"X": demo.samples().inputs[:1]}


def infer(client, request_id):
    client.infer("digits", PICTURE, request_id=request_id)


def hang_up(server):
    server.process.send_signal(signal.SIGHUP)


def test_levels_and_access_log(tmp_path):
    """Off and on again while serving; a rejected file has no effect."""
    file = tmp_path / "inferd.yaml"
    file.write_text("log: {level: info}\n")
    with serving(demo.repository(), "--config", file) as server, Client(server.grpc) as client:
        infer(client, "first")
        server.wait_event("access", request_id="first")
        file.write_text("log: {access: false, levels: {inferd.batching: debug}}\n")
        hang_up(server)
        changed = server.wait_event("log settings reloaded")
        assert (changed["access"], changed["levels"]) == (False, {"inferd.batching": "debug"})
        infer(client, "second")
        file.write_text("log: {access: perhaps}\n")
        hang_up(server)
        refused = server.wait_event("configuration reload rejected")
        assert refused["level"] == "error"
        assert "log.access" in refused["reason"]
        infer(client, "third")
        file.write_text("log: {access: true}\n")
        hang_up(server)
        server.wait_event("log settings reloaded")
        infer(client, "fourth")
        server.wait_event("access", request_id="fourth")
        assert server.stop() == 0
    assert [line["request_id"] for line in server.events("access")] == ["first", "fourth"]


def test_calls_during_changes(tmp_path):
    """None fails."""
    file = tmp_path / "inferd.yaml"
    file.write_text("log: {level: info}\n")
    with serving(demo.repository(), "--config", file) as server, Client(server.grpc) as client:
        with ThreadPoolExecutor(4) as threads:
            calls = [threads.submit(infer, client, str(number)) for number in range(200)]
            for _ in range(5):
                hang_up(server)
                server.wait_event("log settings reloaded")
            for call in calls:
                call.result()
        assert server.stop() == 0


def test_ends_the_process_without_a_file():
    """As for any program whose terminal is closed."""
    server = ServerProcess(demo.repository())
    server.wait_ready()
    hang_up(server)
    assert server.wait() == -signal.SIGHUP

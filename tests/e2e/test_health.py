"""`inferd health` and the names for an orchestrator, through the life of a real server."""

import signal
import subprocess

from tests.load import busy_model
from tests.onnx_models import save
from tests.patience import PATIENCE_S
from tests.server import BIN, ServerProcess, serving

NAMES = ("", "readiness", "startup", "liveness", "inferd.v1.InferenceService")


def _exit_codes(address):
    """Probe each name by a process of its own, as an orchestrator does; 0 is SERVING."""
    probes = [
        subprocess.Popen(
            [BIN / "inferd", "health", "--address", address, "--service", name],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name in NAMES
    ]
    return dict(zip(NAMES, (probe.wait(PATIENCE_S) for probe in probes), strict=True))


def test_only_liveness_and_startup_outlast_the_stop_signal():
    """While it drains, a server must get no new calls and must not be restarted."""
    with serving("--set", "server.drain_delay_s=60") as server:
        assert set(_exit_codes(server.grpc).values()) == {0}
        server.process.send_signal(signal.SIGTERM)
        server.wait_event("draining")
        draining = _exit_codes(server.grpc)
        server.process.send_signal(signal.SIGTERM)
    assert draining == {"": 1, "readiness": 1, "startup": 0, "liveness": 0, "inferd.v1.InferenceService": 1}


def test_only_liveness_says_yes_while_models_load(tmp_path):
    """A model that is long in warming up delays readiness; the process is alive all the same."""
    model = save(busy_model(turns=2_000_000_000), tmp_path / "slow.onnx")
    server = ServerProcess(model)
    try:
        address = server.wait_event("listening")["grpc"]
        server.wait_event("model loading")
        codes = _exit_codes(address)
    finally:
        server.process.kill()
        server.wait()
    assert codes == {"": 1, "readiness": 1, "startup": 1, "liveness": 0, "inferd.v1.InferenceService": 1}

"""gRPC's weighted_round_robin uses the load reports."""

import json

import grpc
import pytest

from inferd.observability.metrics.load_report import Load
from tests.integration.rpc.support import SERVICE, TIMEOUT_S, Running

_POLICY = {
    "loadBalancingConfig": [
        {"weighted_round_robin": {"blackoutPeriod": "0s", "weightUpdatePeriod": "0.1s", "errorUtilizationPenalty": 1.0}}
    ]
}


class Reporting:
    """Sends the same report with each call, and counts the calls."""

    def __init__(self, load):
        self._report = load.to_bytes()
        self.calls = 0

    def started(self, call):
        self.calls += 1

    def finished(self, call, code, details):
        call.add_trailing_metadata((("endpoint-load-metrics-bin", self._report),))


def load(application):
    return Load(cpu=0.1, memory=0.1, application=application, queue=0.0, served_per_s=100.0, failed_per_s=0.0)


@pytest.fixture
def serve():
    """Start servers, and stop them after the test."""
    running = []

    def make(reporting):
        running.append(Running(interceptors=[reporting]).start())
        return running[-1]

    yield make
    for server in running:
        server.close()


def test_less_loaded_server_gets_more_calls(serve):
    """Four times as many for a quarter of the utilization, once it has read the reports."""
    idle, busy = Reporting(load(0.2)), Reporting(load(0.8))
    servers = [serve(reporting) for reporting in (idle, busy)]
    target = "ipv4:" + ",".join(server.address for server in servers)
    options = [("grpc.service_config", json.dumps(_POLICY)), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(target, options=options) as channel:
        call = channel.unary_unary(f"/{SERVICE}/CallbackUnaryUnary")
        share = 0.0
        for _ in range(100):
            before = idle.calls, busy.calls
            for _ in range(200):
                call(b"", timeout=TIMEOUT_S, wait_for_ready=True)
            share = (idle.calls - before[0]) / 200
            # More at first, if the connection to the other one takes longer.
            if 0.7 < share < 0.9:
                break
    assert 0.7 < share < 0.9

"""Several replicas under load, behind Envoy and behind grpcio's round robin: restarted, drained, killed, added."""

import signal
import time
from statistics import mean

import grpc
import pytest

from tests.patience import eventually
from tests.replicas.balancing import Replicas, RoundRobin, ThroughEnvoy
from tests.replicas.traffic import CALLERS, traffic

pytestmark = pytest.mark.timeout(120)

#: Number of calls that show progress.
_SOME = 300
#: Time after the end of a replica within which its connections are closed.
_NOTICED_S = 0.1


@pytest.fixture
def replicas():
    replicas = Replicas(most=4)
    yield replicas
    replicas.end()


@pytest.fixture(params=[RoundRobin, ThroughEnvoy])
def balancer(request, replicas, tmp_path):
    balancer = request.param(replicas, tmp_path)
    yield balancer
    balancer.end()


@pytest.fixture
def three(replicas, balancer):
    """The addresses of three ready replicas that the balancer knows."""
    three = replicas.addresses[:3]
    replicas.start(*three)
    balancer.know(*three)
    return three


def _goes_on(calls, what):
    """Wait until more calls have been answered."""
    enough = calls.answered + _SOME
    eventually(lambda: calls.answered >= enough, f"calls are answered {what}")


def _takes_part(replicas, address):
    """Wait until a replica has answered calls."""
    eventually(lambda: replicas.answered(address) >= _SOME // 10, f"calls reach {address}")


def test_replicas_share_evenly(replicas, balancer, three):
    """Each gets the same number of calls, within 10 %."""
    with balancer.connected(retries="off") as (channel, metadata), traffic(channel, metadata) as calls:
        for address in three:
            _takes_part(replicas, address)
        before = [replicas.answered(address) for address in three]
        enough = calls.answered + 3000
        eventually(lambda: calls.answered >= enough, "calls are answered")
    shares = [replicas.answered(address) - earlier for address, earlier in zip(three, before, strict=True)]
    assert calls.failed == []
    assert max(shares) < 1.1 * mean(shares)
    assert min(shares) > 0.9 * mean(shares)


def test_rolling_restart_and_drain_lose_no_call(replicas, balancer, three):
    """Every replica is restarted in turn, and one is stopped for good."""
    with balancer.connected(retries="off") as (channel, metadata), traffic(channel, metadata) as calls:
        for address in three:
            _takes_part(replicas, address)
            assert replicas.servers[address].stop() == 0, replicas.servers[address].text
            replicas.start(address)
            _takes_part(replicas, address)
        assert replicas.servers[three[0]].stop() == 0
        _goes_on(calls, "by the two that are left")
    assert calls.failed == []


def test_killed_replica_loses_only_its_calls(replicas, balancer, three):
    """Without retries, at most one call of each caller fails."""
    with balancer.connected(retries="unsent") as (channel, metadata), traffic(channel, metadata) as calls:
        for address in three:
            _takes_part(replicas, address)
        replicas.servers[three[1]].stop(signal.SIGKILL)
        gone_s = time.monotonic()
        _goes_on(calls, "by the two that are left")
    assert len(calls.failed) <= CALLERS
    assert {failed.code for failed in calls.failed} <= {grpc.StatusCode.UNAVAILABLE}
    assert all(failed.began_s < gone_s + _NOTICED_S for failed in calls.failed)


def test_retries_hide_killed_replica(replicas, balancer, three):
    """No call fails."""
    with balancer.connected(retries="failed") as (channel, metadata), traffic(channel, metadata) as calls:
        for address in three:
            _takes_part(replicas, address)
        replicas.servers[three[1]].stop(signal.SIGKILL)
        _goes_on(calls, "by the two that are left")
    assert calls.failed == []


def test_added_replica_gets_its_share(replicas, balancer, three):
    """No call fails."""
    fourth = replicas.addresses[3]
    with balancer.connected(retries="off") as (channel, metadata), traffic(channel, metadata) as calls:
        _goes_on(calls, "by three")
        replicas.start(fourth)
        balancer.know(*three, fourth)
        _takes_part(replicas, fourth)
    assert calls.failed == []

"""The choice of connections that are corked for a burst of answers."""

import socket
from pathlib import Path

import pytest

from inferd.rpc.corks import Corks
from tests.patience import PATIENCE_S
from tests.unit.rpc.fakes import FakeClock


class Bench:
    """Corks on fake sockets."""

    def __init__(self):
        self.clock = FakeClock()
        self.sockets = {b"a": 7, b"b": 8}
        self.gone = set()
        self.looks = 0
        self.look_s = 0.0
        self.log = []
        self.corks = Corks(set_cork=self._set, find_sockets=self._find, clock=self.clock)

    def _set(self, descriptor, is_on):
        self.log.append((descriptor, is_on))
        return descriptor not in self.gone

    def _find(self):
        self.looks += 1
        self.clock.advance(self.look_s)
        return self.sockets

    def put(self, peers, after_s=1.0):
        self.clock.advance(after_s)
        return self.corks.put([letter.encode() for letter in peers])


def test_corks_connections_with_several_answers():
    """One answer does not pay. The socket of a new peer is searched for at its first burst."""
    bench = Bench()
    assert bench.put("abab") == []
    assert bench.put("aab") == [7]
    bench.corks.remove([7])
    assert bench.log == [(7, True), (7, False)]
    assert bench.put("bbaa") == [8, 7]
    assert bench.looks == 1


def test_searches_once_for_the_socket_of_a_peer():
    """It may have a Unix socket."""
    bench = Bench()
    for _ in range(3):
        assert bench.put("xx") == []
    assert bench.looks == 1


def test_does_not_cork_closed_sockets():
    """The core closes them without a notice."""
    bench = Bench()
    bench.put("aabb")
    bench.gone.add(7)
    assert bench.put("aabb") == [8]


def test_forgets_disconnected_peers():
    """At each search for new ones."""
    bench = Bench()
    bench.put("aa")
    bench.sockets = {b"c": 9}
    bench.put("cc")
    bench.put("aa")
    assert bench.looks == 3


def test_limits_the_time_for_socket_searches():
    """To a small share, however many peers connect."""
    bench = Bench()
    bench.look_s = 0.01
    bench.put("aa")
    for number in range(200):
        bench.put([f"new {number}"] * 2, after_s=0.01)
    assert bench.looks == 3


def test_corks_nothing_with_too_many_descriptors():
    """Searching them would take too long."""
    bench = Bench()
    bench.sockets = None
    assert [bench.put("aa"), bench.put("aa")] == [[], []]


@pytest.mark.parametrize(
    ("family", "host", "peer"),
    [
        (socket.AF_INET, "127.0.0.1", "ipv4:127.0.0.1:{}"),
        (socket.AF_INET6, "::1", "ipv6:%5B::1%5D:{}"),
        (socket.AF_INET6, "::ffff:127.0.0.1", "ipv4:127.0.0.1:{}"),
    ],
)
def test_corks_real_sockets(family, host, peer):
    """They are found by the address in the core's notation, and stay open."""
    with socket.socket(family) as listening:
        listening.bind(("::" if host.startswith("::ffff") else host, 0))
        listening.listen()
        with socket.create_connection((host, listening.getsockname()[1]), PATIENCE_S) as client:
            accepted, _ = listening.accept()
            peers = [peer.format(client.getsockname()[1]).encode()] * 2
            corks = Corks()
            with accepted:
                before = len(list(Path("/proc/self/fd").iterdir()))
                assert corks.put(peers) == []
                assert len(list(Path("/proc/self/fd").iterdir())) == before
                corked = corks.put(peers)
                assert corked == [accepted.fileno()]
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK) == 1
                accepted.send(b"held")
                corks.remove(corked)
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK) == 0
                assert client.recv(4) == b"held"
            assert corks.put(peers) == []

"""Clients that disconnect, do not read, send faster than they are answered, or come by the hundreds."""

import random
import socket
import struct
import threading
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inferd._generated.inferd.v1 import inference_pb2 as v1
from tests.load import (
    MIB,
    BusyModel,
    add_model,
    array,
    busy_model,
    check,
    connect,
    cpu_s,
    descriptor_count,
    metric,
    request,
    thread_count,
)
from tests.patience import PATIENCE_S, eventually
from tests.server import serving

QUEUE_BYTES = 8 * MIB
#: Inputs of a quarter of a mebibyte, answered with twice as much.
LARGE_LENGTH = MIB // 16
LARGE_BYTES = 4 * LARGE_LENGTH


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A model that rejects, and one that slows producers."""
    repository = tmp_path_factory.mktemp("clients")
    shared = {"runtime": {"intra_op_threads": 1}, "batching": {"max_batch_size": 4}}
    add_model(repository, "busy", busy_model(), shared | {"queue": {"max_bytes": QUEUE_BYTES}})
    add_model(
        repository,
        "blocking",
        busy_model(),
        shared | {"queue": {"policy": "block", "max_rows": 4, "max_blocked": 4}},
    )
    with serving(repository, "--set", "queue.max_delay_ms=0") as running:
        yield running


@pytest.fixture
def busy(server):
    """The model that rejects, over a new connection."""
    with connect(server.grpc) as channel:
        yield BusyModel(server, channel, "busy")


@pytest.fixture(scope="module")
def baseline(server):
    """Threads and descriptors after the first calls of each kind, with all connections closed again."""
    with connect(server.grpc) as channel:
        for name in ("busy", "blocking"):
            list(BusyModel(server, channel, name).stream(iter([_message(array(1), name)])))
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
    _wait_no_calls(server)
    return thread_count(server), descriptor_count(server)


def _message(x, model="busy", number=1):
    return v1.StreamInferRequest(requests=[request(model, x, request_id=str(number))])


def _wait_no_calls(server):
    eventually(lambda: metric(server, "inferd_inflight_requests") == 0, "no call is open")


def _wait_until_still(server):
    """Wait until the number of offered rows stops growing: the server no longer reads."""
    offered = [-1.0]

    def is_still():
        offered.append(metric(server, "inferd_offered_rows_total"))
        return len(offered) > 20 and len(set(offered[-20:])) == 1 and metric(server, "inferd_queue_rows") == 0

    eventually(is_still, "nothing more is offered")


class Relay:
    """Forwards connections between a client and the server, and can break them as a network failure does."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = []
        self._threads = [threading.Thread(target=self._accept)]
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self):
        self._threads[0].start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.tear()
        for thread in self._threads:
            thread.join()

    def tear(self):
        """Reset every connection, at both ends."""
        for each in self._sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # Wakes the reading thread; closing alone does not.
            each.shutdown(socket.SHUT_RD)
            each.close()
        self._sockets.clear()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                thread = threading.Thread(target=self._pump, args=(source, sink))
                thread.start()
                self._threads.append(thread)

    @staticmethod
    def _pump(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass


def test_requests_of_lost_connection_do_not_run(server, busy, baseline):
    """A connection with waiting calls and a stream breaks: none of them runs, and the queue is empty."""
    with Relay(server.grpc) as relay, connect(relay.address) as channel:
        leaving = BusyModel(server, channel, "busy")
        before = busy.statistics().inference_count
        with busy.occupied() as occupying:
            calls = [leaving.send(array(number)) for number in range(1, 11)]
            stream = leaving.stream(_message(array(number), number=number) for number in range(1, 11))
            busy.wait_queued(20)
            relay.tear()
            busy.wait_queued(0)
            assert not occupying.done()
        assert {call.code() for call in calls} == {grpc.StatusCode.UNAVAILABLE}
        with pytest.raises(grpc.RpcError):
            next(stream)
    busy.call(array(1))
    assert busy.statistics().inference_count - before == 1


def test_hundreds_of_cancels(server, busy, baseline):
    """Calls are cancelled at any moment; all others are answered correctly."""
    chance = random.Random(5)
    kept, given_up = [], []
    for number in range(1, 601):
        x = array(number, turns=busy.turns(0.005) if chance.random() < 0.05 else 0)
        if chance.random() < 0.1:
            kept.append((x, busy.send(x)))
        else:
            given_up.append(busy.send(x))
        if given_up and chance.random() < 0.7:
            given_up.pop(chance.randrange(len(given_up))).cancel()
    for call in given_up:
        call.cancel()
    for x, call in kept:
        check(call.result(), x)
    _wait_no_calls(server)


def test_clients_that_never_read_use_bounded_memory(server, busy, baseline):
    """Streams send far more than they read. Their answers do not pile up, and other clients are served meanwhile.

    If a full queue rejects, rejections are small and many requests may be read; if it slows producers, few.
    """
    first_bytes = server.resident_bytes()
    sent = {"busy": 0, "blocking": 0}

    def messages(name):
        for _ in range(400):
            sent[name] += 1
            yield _message(array(1, length=LARGE_LENGTH), name)

    with connect(server.grpc) as one, connect(server.grpc) as other:
        channels = {"busy": one, "blocking": other}
        streams = [BusyModel(server, channels[name], name).stream(messages(name)) for name in sent]
        _wait_until_still(server)
        grown_bytes = server.resident_bytes() - first_bytes
        assert grown_bytes < 100 * MIB, f"{sent} messages of {LARGE_BYTES} bytes: {grown_bytes // MIB} MiB"
        assert sent["blocking"] < 200, "HTTP/2 holds the producer up"
        for number in range(1, 21):
            busy.call(array(number))
        for stream in streams:
            stream.cancel()
    _wait_no_calls(server)


def test_fast_sender_is_slowed_down(server, baseline):
    """With `block`, 50 MiB over a stream to a queue of four rows: nothing is rejected and memory stays flat."""
    first_bytes = server.resident_bytes()
    most_bytes = 0
    with connect(server.grpc) as channel:
        model = BusyModel(server, channel, "blocking")
        x = array(1, length=LARGE_LENGTH, turns=model.turns(0.005))
        stream = model.stream(_message(x, "blocking", number) for number in range(200))
        results = []
        for message in stream:
            results += [(result.request_id, result.WhichOneof("result")) for result in message.results]
            most_bytes = max(most_bytes, server.resident_bytes())
    assert sorted(int(number) for number, _ in results) == list(range(200))
    assert {kind for _, kind in results} == {"response"}
    assert most_bytes - first_bytes < 48 * MIB, f"{(most_bytes - first_bytes) // MIB} MiB"


def test_large_answers_stay_below_default_limit_of_clients(busy, baseline):
    """Many answers of half a mebibyte are ready together, and are not joined to a message above 4 MiB."""
    requests = 24
    with busy.occupied():
        stream = busy.stream(_message(array(n, length=LARGE_LENGTH), number=n) for n in range(1, requests + 1))
        busy.wait_queued(requests)
    results = [result for message in stream for result in message.results]
    assert len(results) == requests
    for result in results:
        check(result.response, array(int(result.request_id), length=LARGE_LENGTH))


def test_hundreds_of_connections(server, busy, baseline):
    """Connections that send nothing, garbage, or one call: the server answers throughout."""
    host, port = server.grpc.rsplit(":", 1)
    openings = [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", bytes(range(256))]
    for number in range(1, 201):
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(openings[number % len(openings)])
        if number % 10 == 0:
            with connect(server.grpc) as channel:
                BusyModel(server, channel, "busy").call(array(number))
            busy.call(array(number))
    _wait_no_calls(server)


def test_nothing_leaks_and_idle_server_uses_no_cpu(server, baseline):
    """After all of the above: as many threads and descriptors as before, no CPU time when idle, and right answers."""
    threads, descriptors = baseline
    _wait_no_calls(server)
    eventually(lambda: descriptor_count(server) <= descriptors, f"{descriptors} descriptors again")
    eventually(lambda: thread_count(server) <= threads, f"{threads} threads again")

    def rests():
        began_at, used_s = time.monotonic(), cpu_s(server)
        threading.Event().wait(1.5)
        return cpu_s(server) - used_s < 0.05 * (time.monotonic() - began_at)

    # What is due now and then, and takes longer on a busy machine, may fall into one of these times.
    eventually(rests, "the server rests")
    with connect(server.grpc) as channel:
        BusyModel(server, channel, "busy").call(array(7, rows=3))

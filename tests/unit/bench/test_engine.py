"""The engine on virtual time, against servers that take as long as a test says."""

import asyncio

import numpy as np
import pytest

from inferd.bench.attempt import Answer, Failure
from inferd.bench.engine import Engine
from inferd.bench.loads import Arrival, ClosedLoop, OpenLoop, Trace
from inferd.bench.recorder import OK, WRONG_ANSWER, Recorder, Window
from inferd.bench.retries import Refusal, Retries
from inferd.bench.traffic import Prepared, RequestSampler, TrafficClass
from tests.unit.bench.virtual_time import run

_FULL = Failure(Refusal("RESOURCE_EXHAUSTED", retry_after_s=0.25), "QUEUE_FULL", "the queue is full")


class _Server:
    """Answers each request after ``takes_s``; ``answers`` are what comes first, one for each attempt."""

    def __init__(self, takes_s=0.0, answers=(), workers=None):
        self.takes_s = takes_s
        self.answers = list(answers)
        self.workers = workers
        self.sent = []

    async def send(self, attempt, timeout_s):
        clock = asyncio.get_running_loop().time
        attempt.sent(clock())
        self.sent.append((clock(), attempt.prepared.rows, timeout_s))
        if self.workers is None:
            await asyncio.sleep(self.takes_s)
        else:
            async with self.workers:
                await asyncio.sleep(self.takes_s)
        return self.answers.pop(0) if self.answers else Answer(b"answer", clock())


def _run(load, server, *, window=None, retries=0, timeout_s=100.0, check=None, max_in_flight=1000, objective_s=None):
    random = np.random.default_rng(0)
    recorder = Recorder(
        window=window or Window(start_s=1.0, warm_s=1.0, end_s=11.0), classes=1, objective_s=objective_s, interval_s=1.0
    )
    expected = None if check is None else {}
    prepared = {(0, rows): [Prepared(0, rows, b"request", timeout_s, expected)] for rows in (1, 5)}
    engine = Engine(
        send=server.send,
        check=check or (lambda request, answer: ""),
        sampler=RequestSampler([TrafficClass(name="c", model="m")], prepared, random),
        retries=Retries(retries),
        recorder=recorder,
        random=random,
        max_in_flight=max_in_flight,
    )
    run(engine.run(load))
    return recorder


def test_closed_loop_keeps_requests_in_flight():
    """Each answer makes room for the next request; none is sent after the end."""
    server = _Server(takes_s=0.5)
    recorder = _run(ClosedLoop(concurrency=4), server)
    total = recorder.total()
    assert recorder.most_in_flight == 4
    assert total.requests == total.ok == 80
    assert {moment for moment, *_ in server.sent} == {1 + 0.5 * number for number in range(20)}


def test_open_loop_sends_whatever_comes_back():
    """At its own times, also while nothing is answered."""
    server = _Server(takes_s=60.0)
    recorder = _run(OpenLoop(rate_per_s=2, process="constant"), server)
    assert [moment for moment, *_ in server.sent] == pytest.approx([1 + number / 2 for number in range(20)])
    assert recorder.most_in_flight == 20
    assert recorder.total().completed == 0
    assert recorder.total().ok == 20


def test_latency_counts_from_intended_time():
    """One slow answer makes those wait that are held back behind it, and their latency says so."""
    recorder = _run(OpenLoop(rate_per_s=2, process="constant"), _Server(takes_s=1.0), max_in_flight=1)
    latencies = recorder.total().latency
    assert latencies.percentiles_ms((100.0,))[100.0] == pytest.approx(10_500, rel=0.01)
    assert recorder.total().latency_from_send.max_ms() == pytest.approx(1000, rel=0.01)
    assert recorder.send_lag.max_ms() == pytest.approx(9_500, rel=0.01)
    assert recorder.held_back > 0


def test_deadline_passes_before_send():
    """A request that could not be sent in its time is a failure with a reason of its own, and is not sent."""
    server = _Server(takes_s=1.0)
    recorder = _run(OpenLoop(rate_per_s=2, process="constant"), server, max_in_flight=1, timeout_s=2.9)
    statuses = recorder.total().statuses.counts
    assert statuses["DEADLINE_EXCEEDED", "NOT_SENT"] == 20 - len(server.sent) > 0
    assert all(0 < timeout_s <= 2.9 for _, _, timeout_s in server.sent)


def test_trace_is_replayed_with_its_rows():
    """At the times and with the rows of the file."""
    server = _Server()
    trace = Trace(entries=(Arrival(0.0, 5), Arrival(0.25), Arrival(0.25, 5), Arrival(99.0)))
    recorder = _run(trace, server)
    assert [(moment, rows) for moment, rows, _ in server.sent] == [(1.0, 5), (1.25, 1), (1.25, 5)]
    assert recorder.total().rows == 11


def test_retry_honours_hint():
    """The retry comes when the server said; the latency counts from the first attempt."""
    server = _Server(answers=[_FULL, _FULL])
    recorder = _run(Trace(entries=(Arrival(0.0),)), server, retries=2)
    assert [moment for moment, *_ in server.sent] == [1.0, 1.25, 1.5]
    total = recorder.total()
    assert total.retried == {("RESOURCE_EXHAUSTED", "QUEUE_FULL"): 2}
    assert total.statuses.counts == {OK: 1}
    assert total.latency.max_ms() == pytest.approx(500, rel=0.001)


def test_gives_up_after_retries():
    """The last refusal is what the request is counted under, with the server's message."""
    server = _Server(answers=[_FULL] * 9)
    recorder = _run(Trace(entries=(Arrival(0.0),)), server, retries=2)
    total = recorder.total()
    assert len(server.sent) == 3
    assert total.statuses.counts == {("RESOURCE_EXHAUSTED", "QUEUE_FULL"): 1}
    assert total.statuses.messages == {("RESOURCE_EXHAUSTED", "QUEUE_FULL"): "the queue is full"}
    assert total.failure_latency.count == 1
    assert total.latency.count == 0


def test_no_retry_beyond_deadline():
    """A hint that leads behind the deadline ends the request at once."""
    server = _Server(answers=[_FULL] * 9)
    recorder = _run(Trace(entries=(Arrival(0.0),)), server, retries=5, timeout_s=0.6)
    assert [moment for moment, *_ in server.sent] == [1.0, 1.25, 1.5]
    assert recorder.total().ok == 0


def test_wrong_answers_are_failures():
    """They have a status of their own and no part in throughput or goodput."""
    answers = iter(["", 'output "y": differs', ""])
    trace = Trace(entries=(Arrival(0.0), Arrival(1.0), Arrival(2.0)))
    recorder = _run(trace, _Server(), check=lambda request, answer: next(answers))
    total = recorder.total()
    assert (total.ok, total.wrong, total.completed, total.within_objective) == (2, 1, 2, 2)
    assert total.statuses.counts == {OK: 2, WRONG_ANSWER: 1}
    assert total.statuses.messages == {WRONG_ANSWER: 'output "y": differs'}


def test_warm_up_is_not_counted():
    """Requests meant for the warm-up are sent, and counted nowhere but in the time series."""
    server = _Server(takes_s=0.25)
    window = Window(start_s=1.0, warm_s=3.0, end_s=5.0)
    recorder = _run(OpenLoop(rate_per_s=4, process="constant"), server, window=window)
    assert len(server.sent) == 16
    assert recorder.total().requests == 8
    assert sum(interval.ok for interval in recorder.intervals) == 16


def test_goodput_counts_answers_within_objective():
    """One worker that takes 1 s for each of 2 requests a second: only the first are in time."""

    async def workers():
        return asyncio.Semaphore(1)

    server = _Server(takes_s=1.0, workers=run(workers()))
    recorder = _run(OpenLoop(rate_per_s=2, process="constant"), server, objective_s=2.25)
    assert recorder.total().within_objective == 3
    assert recorder.total().ok == 20
    assert recorder.total().completed == 9

"""Ten times as many requests as a language model can serve, on a clock that its runs advance."""

import math
import random

from inferd.errors import OverloadedError
from tests.generating import FakeDecoder, Generation, a_request

_SLOTS = 16


def _run_s(run):
    """Return what a small model takes on two cores, in seconds."""
    if len(run) == 1 and len(run[0][1]) > 1:
        return 0.004 + 0.0011 * len(run[0][1])
    return 0.006 + 0.0018 * len(run)


#: Run times of its warm-up.
_SEEDS = [(n, _run_s([(0, [0], 0)] * n)) for n in (1, _SLOTS)], [(n, _run_s([(0, [0] * n, 0)])) for n in (8, 64)]


def _arrivals(generation, rate, seconds, chance):
    """Yield each time at which a request comes."""
    at = generation.clock()
    until = at + seconds
    while at < until:
        yield at
        at += chance.expovariate(rate)


def _served(generation, *, rate=80.0, seconds=25.0, ends=False, timeout_s=math.inf):
    """Submit random requests for some time; return them, when all have ended."""
    chance, requests = random.Random(1), []
    for at in _arrivals(generation, rate, seconds, chance):
        _run_until(generation, at)
        tokens = chance.randrange(8, 60)
        requests.append(
            a_request(
                chance.randrange(8, 120),
                4 * tokens if ends else tokens,
                ends=ends,
                received_at=at,
                deadline=at + timeout_s,
            )
        )
        generation.submit(requests[-1])
    _drain(generation)
    return requests


def _drain(generation):
    while generation.engine.loop.run_once():
        generation.poll_thread.fire_due()


def _model(**settings):
    decoder = FakeDecoder(slots=_SLOTS, context=512, run_s=_run_s)
    return Generation(decoder, prefill_chunk_tokens=64, seeds=_SEEDS, **settings)


def _admitted(requests):
    return [request for request in requests if not isinstance(request.receiver.error, OverloadedError)]


def _complete(requests):
    return [request for request in requests if request.receiver.is_complete]


def test_admitted_requests_complete_in_time():
    """From the first request on; the others are rejected on arrival, and the model is always busy."""
    requests = _served(_model(), timeout_s=8.0)
    admitted = _admitted(requests)
    assert len(_complete(admitted)) >= 0.99 * len(admitted)
    assert len(admitted) > 200
    assert {request.receiver.error.reason for request in requests if request not in admitted} == {"DEADLINE_TOO_CLOSE"}


def test_answers_of_unknown_length_complete_in_time_once_some_have_ended():
    """Answers that end at a quarter of max_tokens on average: 97 % of the admitted ones are in time."""
    requests = _served(_model(), timeout_s=8.0, ends=True)
    late = _admitted([request for request in requests if request.received_at > 110.0])
    assert len(_complete(late)) >= 0.97 * len(late)
    assert len(late) > 60


def test_refuses_nothing_below_capacity():
    """At half of the model's capacity, all requests are served."""
    requests = _served(_model(), rate=3.0, timeout_s=20.0)
    assert len(_complete(requests)) == len(requests)


def test_limits_the_queue_by_time():
    """No request waits for much longer than max_delay_s, and all admitted ones are served."""
    requests = _served(_model(max_delay_s=3.0))
    admitted = _admitted(requests)
    assert len(_complete(admitted)) == len(admitted) > 150
    waits = sorted(request.receiver.deltas[-1].usage.queue_s for request in admitted if request.received_at > 103.0)
    assert waits[len(waits) // 2] < 3.5
    assert waits[-1] < 6.0


def test_serves_a_refused_request_after_its_hint():
    """A retry after the hint is admitted and served if no others have come meanwhile."""
    generation = _model(max_delay_s=3.0)
    for runs in (0, 50):
        for _ in range(runs):
            generation.engine.loop.run_once()
        generation.submit(*(requests := [a_request(60, 30) for _ in range(300)]))
    error = requests[-1].receiver.error
    assert isinstance(error, OverloadedError)
    assert 1.0 < error.retry_after_s <= 3.0
    comes_at = generation.clock() + error.retry_after_s
    while generation.clock() < comes_at:
        generation.engine.loop.run_once()
    generation.submit(again := a_request(60, 30, deadline=generation.clock() + 60.0))
    _drain(generation)
    assert again.receiver.is_complete


def test_admits_after_their_hints_what_would_have_been_late():
    """Of as many retries as are served within the hints, with the same timeout, most are admitted."""
    generation, chance, refused = _model(), random.Random(2), []
    for at in _arrivals(generation, 80.0, 12.0, chance):
        _run_until(generation, at)
        request = a_request(60, chance.randrange(8, 60), received_at=at, deadline=at + 4.0)
        generation.submit(request)
        if request.receiver.error is not None:
            refused.append((at + request.receiver.error.retry_after_s, request))
    again = []
    for at, request in sorted(refused[-60::6], key=lambda each: each[0]):
        _run_until(generation, at)
        now = generation.clock()
        again.append(a_request(60, request.max_tokens, received_at=now, deadline=now + 4.0))
        generation.submit(again[-1])
    assert len(again) == 10
    assert len(_admitted(again)) >= 7


def _run_until(generation, at):
    while generation.clock() < at:
        if not generation.engine.loop.run_once():
            generation.clock.now = at
        generation.poll_thread.fire_due()

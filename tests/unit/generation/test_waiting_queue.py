"""The waiting queue of a language model: which requests are admitted, blocked, shed or rejected, which starts next."""

import math

import pytest

from inferd.batching.policies import policy_for
from inferd.batching.queued import Principal, QueueEffects
from inferd.config.generation import GenerationSettings
from inferd.config.settings import QueueSettings
from inferd.errors import DeadlineExceededError, InvalidInputError, ModelUnavailableError, OverloadedError, Retry
from inferd.generation.forecast import CacheLoad, GenerationForecast
from inferd.generation.waiting_queue import WaitingQueue
from tests.generating import a_request

#: A full cache.
_FULL = CacheLoad(sequences=4, free_slots=0, free_tokens=0)


class Bench:
    """A waiting queue in front of a full cache, at a time that the test sets."""

    def __init__(self, *, queue=None, max_request_tokens=1000, seeds=None, **generation):
        settings = QueueSettings(**queue or {})
        chosen = GenerationSettings(**generation)
        self.forecast = GenerationForecast(
            slots=4, total_tokens=400, chunk_tokens=64, max_delay_s=chosen.max_delay_s, jitter=lambda: 0.0
        )
        if seeds:
            self.forecast.times.seed(*seeds)
        self.queue = WaitingQueue(
            name="m",
            queue=settings,
            generation=chosen,
            policy=policy_for(settings),
            forecast=self.forecast,
            max_request_tokens=max_request_tokens,
        )
        self.now = 100.0
        self.effects = QueueEffects()

    def offer(self, *requests, load=_FULL):
        for request in requests:
            self.queue.offer(request, load, self.now, self.effects)

    def take_all(self):
        """Return the waiting requests in order of service."""
        taken = []
        while (request := self.queue.next_request(self.now, self.effects)) is not None:
            self.queue.start(request, self.now, self.effects)
            taken.append(request)
        return taken

    @property
    def failed(self):
        return dict(self.effects.failed)


def test_orders_by_priority_then_arrival():
    """Priority 1 starts before 2, and scavengers last."""
    bench = Bench()
    scavenger, low, first, second = (a_request(priority=priority) for priority in (4, 2, 1, 1))
    bench.offer(scavenger, low, first, second)
    assert bench.take_all() == [first, second, low, scavenger]


def test_principals_share_the_model_by_reserved_tokens():
    """Of a principal with long requests, fewer are started than of one with short requests."""
    bench = Bench()
    long = [a_request(90, 10, principal=Principal("long")) for _ in range(3)]
    short = [a_request(10, 10, principal=Principal("short")) for _ in range(10)]
    bench.offer(*long, *short)
    order = bench.take_all()
    assert [order.index(request) for request in long] == [0, 6, 12]


def test_low_priorities_are_slowed_and_not_starved():
    """They age while higher priorities are served, as those of ordinary models."""
    bench = Bench(queue={"low_priority_share": 0.1})
    low = a_request(5, 5, priority=3)
    bench.offer(low)
    served = 0
    while bench.queue.waiting.rows_of(3):
        served += 1
        bench.offer(a_request(5, 5, priority=1), a_request(5, 5, priority=1))
        request = bench.queue.next_request(bench.now, bench.effects)
        bench.queue.start(request, bench.now, bench.effects)
    assert 5 <= served <= 15


def test_full_queue_rejects_and_says_how_full_it_is():
    """A queue may be full in requests or in tokens."""
    bench = Bench(max_waiting_requests=2)
    bench.offer(a_request(), a_request(), last := a_request())
    assert isinstance(bench.failed[last], OverloadedError)
    assert "2 of 2 requests" in bench.failed[last].message
    bench = Bench(max_waiting_tokens=1000, max_request_tokens=900)
    bench.offer(a_request(500, 400), last := a_request(100, 1))
    assert bench.failed[last].reason == "QUEUE_FULL"
    assert "900 of 1000 tokens" in bench.failed[last].message


def test_block_holds_requests_until_there_is_room():
    """Blocked requests are admitted in order of arrival; more than max_blocked are rejected."""
    bench = Bench(queue={"policy": "block", "max_blocked": 2}, max_waiting_requests=1)
    requests = [a_request() for _ in range(4)]
    bench.offer(*requests)
    assert bench.queue.count == 3
    assert bench.failed[requests[3]].reason == "BLOCKED_LIMIT"
    assert bench.take_all() == requests[:3]


def test_cancel_makes_room_for_blocked_requests():
    """A blocked request takes the room of a cancelled one at once, and can be cancelled itself."""
    bench = Bench(queue={"policy": "block"}, max_waiting_requests=1)
    first, second, third = (a_request() for _ in range(3))
    bench.offer(first, second, third)
    assert bench.queue.remove(second, bench.now, bench.effects)
    assert bench.queue.remove(first, bench.now, bench.effects)
    assert not bench.queue.remove(first, bench.now, bench.effects)
    assert bench.take_all() == [third]


def test_shed_oldest_evicts_the_oldest_of_the_lowest_priority():
    """A new request of a lower priority than all waiting ones evicts none."""
    bench = Bench(queue={"policy": "shed_oldest"}, max_waiting_requests=2)
    low, high, new, lower = (a_request(priority=priority) for priority in (2, 1, 2, 3))
    bench.offer(low, high, new, lower)
    assert {request: error.reason for request, error in bench.effects.failed} == {low: "SHED", lower: "QUEUE_FULL"}


def test_scavengers_are_evicted_first():
    """A scavenger is evicted for any other request, also with the policy reject."""
    bench = Bench(max_waiting_requests=1)
    bench.offer(scavenger := a_request(priority=4), request := a_request())
    assert bench.failed[scavenger].reason == "SHED"
    assert bench.take_all() == [request]


def test_limits_a_priority_by_tokens():
    """The limit of one priority counts reserved tokens, and does not apply to others."""
    bench = Bench(queue={"by_priority": {3: {"max_rows": 20}}})
    bench.offer(a_request(10, 5, priority=3), other := a_request(10, 5, priority=3), a_request(10, 5, priority=2))
    assert list(bench.failed) == [other]


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (a_request(900, 101), InvalidInputError),
        (a_request(priority=5), InvalidInputError),
        (a_request(deadline=99.0), DeadlineExceededError),
    ],
    ids=["too long", "priority", "expired"],
)
def test_refuses_requests_that_can_never_run(request_, error):
    """They are rejected by an empty queue too."""
    bench = Bench()
    bench.offer(request_)
    assert isinstance(bench.failed[request_], error)


@pytest.mark.parametrize(
    ("settings", "waiting"),
    [
        ({"max_waiting_requests": 5}, 5),
        ({"max_waiting_tokens": 1099}, 10),
        ({"max_waiting_tokens": 1, "max_request_tokens": 100}, 1),
        ({"queue": {"max_bytes": 8 * 60 * 3}}, 3),
        ({"queue": {"by_priority": {1: {"max_rows": 299}}}}, 2),
        ({"queue": {"policy": "block", "max_blocked": 2}, "max_waiting_requests": 1}, 3),
        ({"queue": {"policy": "shed_oldest"}, "max_waiting_requests": 2}, 2),
        # 60 ms for a prompt and 400 for an answer of four at a time are 625 reserved tokens a second.
        ({"max_delay_s": 1.0, "seeds": ([(1, 0.01), (4, 0.04)], [(1, 0.001), (64, 0.064)])}, 2),
    ],
    ids=["requests", "tokens", "larger than the queue", "bytes", "priority", "block", "shed_oldest", "delay"],
)
def test_refuses_choices_that_can_never_be_admitted_together(settings, waiting):
    """Four start at once; of those that wait then, more than the queue holds are refused for good, and no fewer."""
    for choices in (4 + waiting, 5 + waiting):
        bench = Bench(**settings)
        requests = [a_request(60, 40, choices=choices) for _ in range(choices)]
        for request in requests[:4]:
            bench.offer(request, load=CacheLoad(sequences=0, free_slots=4, free_tokens=400))
            assert bench.take_all() == [request]
        bench.offer(*requests[4:])
        if choices == 4 + waiting:
            assert not bench.failed
            continue
        error = next(iter(bench.failed.values()))
        assert isinstance(error, InvalidInputError)
        assert error.at == "choices"
        assert error.message.startswith(f"n: expected at most {4 + waiting} choices of 100 tokens each")
        assert error.message.endswith(f"got {choices}")


def test_refuses_while_closed_or_stuck():
    """The error says whether the model is unloaded or a run does not end."""
    bench = Bench()
    bench.queue.closed = True
    bench.offer(request := a_request())
    assert isinstance(bench.failed[request], ModelUnavailableError)
    bench = Bench()
    bench.queue.unavailable = bench.queue.refusals.stuck
    bench.offer(request := a_request())
    assert bench.failed[request].reason == "RUNS_STUCK"


def test_waiting_and_blocked_requests_expire():
    """They fail when the timer of the earliest deadline fires."""
    bench = Bench(queue={"policy": "block"}, max_waiting_requests=1)
    bench.offer(first := a_request(deadline=101.0), second := a_request(deadline=102.0), last := a_request())
    assert bench.effects.timers_at == [101.0]
    bench.now = 101.0
    bench.queue.expire(bench.now, bench.effects)
    assert list(bench.failed) == [first]
    bench.now = 102.0
    bench.queue.expire(bench.now, bench.effects)
    assert list(bench.failed) == [first, second]
    assert bench.take_all() == [last]


def test_refuses_deadlines_that_cannot_be_met():
    """The prediction counts the prompt, the answer, and the requests that are ahead."""
    # A token a millisecond in chunks, ten milliseconds a step.
    bench = Bench(seeds=([(1, 0.01), (4, 0.01)], [(1, 0.001), (64, 0.064)]))
    free = CacheLoad(sequences=0, free_slots=4, free_tokens=400)
    # 100 ms and 1 s, times the margin.
    bench.offer(late := a_request(100, 100, deadline=101.0), load=free)
    assert bench.failed[late].reason == "DEADLINE_TOO_CLOSE"
    assert bench.failed[late].message.endswith("; the answer may take 1.64 s, and the deadline is in 1 s")
    assert bench.failed[late].retry_after_s is None, "it takes 1.09 s even alone"
    assert bench.failed[late].retry is Retry.NEVER
    bench.offer(unlikely := a_request(100, 100, deadline=101.2), load=free)
    assert bench.failed[unlikely].retry_after_s > 0
    bench.offer(early := a_request(100, 100, deadline=102.0), load=free)
    assert early not in bench.failed
    bench.offer(last := a_request(100, 100, deadline=102.0, choices=50))
    assert bench.failed[last].retry is Retry.NEVER, "so many take longer, whatever else runs"
    bench.offer(*[a_request(100, 100) for _ in range(5)])
    bench.offer(behind := a_request(100, 100, deadline=102.0))
    assert bench.failed[behind].reason == "DEADLINE_TOO_CLOSE"
    assert bench.failed[behind].retry_after_s > 0.5


def test_admits_requests_without_a_deadline_however_long_they_take():
    """Without a deadline, no prediction rejects a request."""
    bench = Bench(seeds=([(1, 1000.0)], [(1, 1000.0)]))
    bench.offer(request := a_request(deadline=math.inf))
    assert request not in bench.failed

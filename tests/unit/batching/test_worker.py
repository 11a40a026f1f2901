"""Threads that run batches, those that are stuck, and those that take their places."""

import threading

import pytest

from inferd.batching.request import Batch
from inferd.batching.worker import Post, Workers
from tests.fakes import Caller, FakeClock
from tests.load import eventually
from tests.patience import PATIENCE_S


class _Source:
    """Hands out what it is given, and None at the end."""

    def __init__(self):
        self._batches = []
        self._changed = threading.Condition()
        self.finished = []

    def put(self, *batches):
        with self._changed:
            self._batches.extend(batches)
            self._changed.notify_all()

    def take(self, finished):
        with self._changed:
            if finished is not None:
                self.finished.append(finished)
            self._changed.wait_for(lambda: self._batches, PATIENCE_S)
            return self._batches.pop(0)


class _Executor:
    """Is stuck with each batch until it is told otherwise."""

    def __init__(self):
        self.running = {}
        self.is_closing = False

    def execute(self, batch):
        self.running[batch] = threading.Event()
        assert self.is_closing or self.running[batch].wait(PATIENCE_S)

    def close(self):
        self.is_closing = True
        for event in list(self.running.values()):
            event.set()


class _Crew:
    def __init__(self, posts=1):
        self.source, self.executor = _Source(), _Executor()
        self.vacancies = []
        self.handed_over = []
        self.rest = None
        self.workers = Workers(
            executor=self.executor,
            posts=[Post(f"post-{number}", self.source) for number in range(posts)],
            hand_over=self._hand_over,
            on_vacancy=self.vacancies.append,
            clock=FakeClock(),
        )
        self.workers.start()
        self.workers.need()

    def _hand_over(self, batch):
        self.handed_over.append(batch)
        rest, self.rest = self.rest, None
        return rest

    def stick(self):
        """Have one more worker stuck; return its batch."""
        batch = self.run()
        self.workers.replace(batch)
        return batch

    def run(self):
        """Have a batch run by a worker that is free; return it while it runs."""
        batch = _batch()
        self.source.put(batch)
        eventually(lambda: batch in self.executor.running, "a worker takes the batch")
        return batch

    def end(self, batch):
        self.executor.running[batch].set()

    def close(self, posts):
        self.executor.close()
        self.source.put(*posts * [None])
        eventually(lambda: self.workers.stuck == 0, "no thread is stuck")
        assert self.workers.join(PATIENCE_S)


def _batch():
    return Batch(requests=[Caller().request], rows=1, started_at=100.0)


@pytest.fixture
def crew():
    made = _Crew()
    yield made
    made.close(1)


def test_a_stuck_worker_is_replaced(crew):
    """Another thread takes the next batch, although the first has not come back."""
    stuck = crew.stick()
    assert crew.workers.stuck == 1
    assert crew.handed_over == [stuck]
    crew.end(crew.run())
    assert crew.vacancies == []


def test_a_worker_that_was_replaced_hands_nothing_back(crew):
    """Its batch was given up; it ends."""
    stuck = crew.stick()
    assert stuck.given_up
    crew.end(stuck)
    eventually(lambda: crew.workers.stuck == 0, "the thread has come back")
    other = crew.run()
    crew.end(other)
    eventually(lambda: crew.source.finished, "the other is handed back")
    assert crew.source.finished == [other]


def test_what_is_left_of_a_batch_is_run_first(crew):
    """By the new worker: these requests have waited for long enough."""
    crew.rest = rest = _batch()
    stuck = crew.run()
    crew.source.put(later := _batch())
    crew.workers.replace(stuck)
    eventually(lambda: rest in crew.executor.running, "the rest runs")
    assert later not in crew.executor.running


def test_a_worker_that_has_come_back_is_not_replaced(crew):
    """It was faster than who wanted to give it up, and it is the one that hands its batch back."""
    batch = crew.run()
    crew.end(batch)
    eventually(lambda: crew.source.finished, "it is handed back")
    crew.workers.replace(batch)
    assert crew.workers.stuck == 0
    assert crew.handed_over == []
    assert not batch.given_up


def test_no_more_than_so_many_threads_are_left_behind(crew):
    """Each costs a core and memory; the post of the one too many stays vacant."""
    for _ in range(4):
        crew.stick()
    assert crew.vacancies == []
    crew.stick()
    assert crew.vacancies == [True]
    assert crew.workers.stuck == 5


def test_a_vacant_post_is_filled_when_a_thread_comes_back(crew):
    """By a fresh thread; the one that was stuck ends."""
    stuck = [crew.stick() for _ in range(5)]
    crew.end(stuck[2])
    eventually(lambda: crew.vacancies == [True, False], "the post is filled")
    crew.end(crew.run())
    assert crew.workers.stuck == 4


def test_a_model_with_many_workers_may_have_as_many_stuck():
    """It is as large as that."""
    crew = _Crew(posts=6)
    for _ in range(6):
        crew.stick()
    assert crew.vacancies == []
    crew.stick()
    assert crew.vacancies == [True]
    crew.close(6)


def test_those_that_are_stuck_are_not_waited_for(crew):
    """`join` returns False while they are there."""
    stuck = crew.stick()
    crew.source.put(None)
    assert not crew.workers.join(10)
    crew.end(stuck)
    eventually(lambda: crew.workers.stuck == 0, "the thread has come back")
    assert crew.workers.join(PATIENCE_S)


def test_a_post_stays_vacant_if_there_is_no_thread_for_it(crew, monkeypatch):
    """What was to be run first is given up as well, and the next thread that comes back has its post filled."""
    crew.rest = rest = _batch()
    stuck = crew.run()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _no_thread)
        crew.workers.replace(stuck)
    assert crew.vacancies == [True]
    assert crew.handed_over == [stuck, rest]
    crew.end(stuck)
    eventually(lambda: crew.vacancies == [True, False], "the post is filled")
    crew.end(crew.run())


def _no_thread(_thread):
    raise RuntimeError("can't start new thread")


def test_threads_start_with_the_first_request(monkeypatch):
    """Not before, since most of many models are idle; and not before they may."""
    started = []
    monkeypatch.setattr(threading.Thread, "start", lambda thread: started.append(thread.name))
    workers = Workers(
        executor=_Executor(),
        posts=[Post("one", _Source()), Post("two", _Source())],
        hand_over=lambda _: None,
        on_vacancy=lambda _: None,
        clock=FakeClock(),
    )
    workers.start()
    assert (started, workers.have_started) == ([], False)
    assert workers.join(0)
    workers.need()
    assert (started, workers.have_started) == (["one", "two"], True)


def test_a_system_that_gives_no_thread(monkeypatch):
    """Requests are rejected until it gives one; those that are missing are tried again with each request."""
    vacancies, started, allowed = [], [], 0
    source = _Source()
    start = threading.Thread.start

    def limited(thread):
        if len(started) >= allowed:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    workers = Workers(
        executor=_Executor(),
        posts=[Post("one", source), Post("two", source)],
        hand_over=lambda _: None,
        on_vacancy=vacancies.append,
        clock=FakeClock(),
    )
    workers.start()
    workers.need()
    workers.need()
    assert (vacancies, workers.have_started) == ([True], False)
    allowed = 1
    workers.need()
    assert (vacancies, workers.have_started) == ([True, False], False)
    allowed = 2
    workers.need()
    assert (vacancies, workers.have_started) == ([True, False], True)
    source.put(None, None)
    assert workers.join(PATIENCE_S)

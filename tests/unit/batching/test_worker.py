"""Worker threads: running batches, stuck threads, and their replacements."""

import os
import sys
import threading

import pytest

from inferd.batching.request import Batch
from inferd.batching.worker import Post, Workers
from tests.fakes import Caller, FakeClock
from tests.patience import PATIENCE_S, eventually


class _Source:
    """A queue that returns the batches it was given, then None."""

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
    """An executor that is stuck with each batch until the test ends it."""

    def __init__(self):
        self.running = {}
        self.is_closing = False

    def execute(self, batch):
        self.running[batch] = threading.Event()
        self.niceness = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
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
        self.workers.lazy_start.allow()
        assert self.workers.lazy_start.need()

    def _hand_over(self, batch):
        self.handed_over.append(batch)
        rest, self.rest = self.rest, None
        return rest

    def stick(self):
        """Have another worker get stuck; return its batch."""
        batch = self.run()
        self.workers.replace(batch)
        return batch

    def run(self):
        """Have an idle worker run a batch; return it while it runs."""
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


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_workers_give_way(crew):
    """To the thread that reads and answers."""
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    crew.end(crew.run())
    assert crew.executor.niceness == min(own + 2, 19)


def test_replaces_stuck_worker(crew):
    """Another thread takes the next batch before the first has returned."""
    stuck = crew.stick()
    assert crew.workers.stuck == 1
    assert crew.handed_over == [stuck]
    crew.end(crew.run())
    assert crew.vacancies == []


def test_replaced_worker_does_not_retire_its_batch(crew):
    """Its batch was given up, and the thread ends."""
    stuck = crew.stick()
    assert stuck.given_up
    crew.end(stuck)
    eventually(lambda: crew.workers.stuck == 0, "the thread has come back")
    other = crew.run()
    crew.end(other)
    eventually(lambda: crew.source.finished, "the other is handed back")
    assert crew.source.finished == [other]


def test_new_worker_runs_the_rest_of_the_batch_first(crew):
    """These requests have waited long enough."""
    crew.rest = rest = _batch()
    stuck = crew.run()
    crew.source.put(later := _batch())
    crew.workers.replace(stuck)
    eventually(lambda: rest in crew.executor.running, "the rest runs")
    assert later not in crew.executor.running


def test_returned_worker_is_not_replaced(crew):
    """It ended just before it was given up, and retires its batch."""
    batch = crew.run()
    crew.end(batch)
    eventually(lambda: crew.source.finished, "it is handed back")
    crew.workers.replace(batch)
    assert crew.workers.stuck == 0
    assert crew.handed_over == []
    assert not batch.given_up


def test_number_of_stuck_threads_is_bounded(crew):
    """Each costs a core and memory; the last one is not replaced."""
    for _ in range(4):
        crew.stick()
    assert crew.vacancies == []
    crew.stick()
    assert crew.vacancies == [True]
    assert crew.workers.stuck == 5


def test_returning_thread_restores_the_number_of_workers(crew):
    """By a fresh thread; the one that was stuck ends."""
    stuck = [crew.stick() for _ in range(5)]
    crew.end(stuck[2])
    eventually(lambda: crew.vacancies == [True, False], "the post is filled")
    crew.end(crew.run())
    assert crew.workers.stuck == 4


def test_bound_of_stuck_threads_grows_with_workers():
    """A model may have as many stuck as it has workers."""
    crew = _Crew(posts=6)
    for _ in range(6):
        crew.stick()
    assert crew.vacancies == []
    crew.stick()
    assert crew.vacancies == [True]
    crew.close(6)


def test_join_does_not_wait_for_stuck_threads(crew):
    """It returns False while there are any."""
    stuck = crew.stick()
    crew.source.put(None)
    assert not crew.workers.join(10)
    crew.end(stuck)
    eventually(lambda: crew.workers.stuck == 0, "the thread has come back")
    assert crew.workers.join(PATIENCE_S)


def test_worker_is_missing_if_no_thread_can_start(crew, monkeypatch):
    """Its first batch is given up too, and the next thread that returns restores it."""
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
    workers.lazy_start.allow()
    assert started == []
    assert workers.join(0)
    assert workers.lazy_start.need()
    assert started == ["one", "two"]


def test_further_worker_takes_a_free_post(monkeypatch):
    """The first that has no worker, or one that has ended; so there are never more than the posts."""
    started = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda thread: (started.append(thread.name), start(thread)))
    source = _Source()
    workers = Workers(
        executor=_Executor(),
        posts=[Post("one", source)],
        spare=[Post("two", source), Post("three", source)],
        hand_over=lambda _: None,
        on_vacancy=lambda _: None,
        clock=FakeClock(),
    )
    workers.lazy_start.allow()
    assert workers.lazy_start.need()
    assert workers.add()
    assert started == ["one", "two"]
    source.put(None, None)
    assert workers.join(PATIENCE_S)
    assert workers.add()
    assert started == ["one", "two", "one"]
    source.put(None)
    assert workers.join(PATIENCE_S)


def test_thread_creation_fails(monkeypatch):
    """Requests are rejected until a thread starts; each request tries again."""
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
    threads = workers.lazy_start
    threads.allow()
    assert (threads.need(), threads.need(), vacancies) == (False, False, [True])
    allowed = 1
    assert (threads.need(), vacancies) == (False, [True, False])
    allowed = 2
    assert (threads.need(), vacancies) == (True, [True, False])
    source.put(None, None)
    assert workers.join(PATIENCE_S)

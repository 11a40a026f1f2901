"""Thread pools."""

import threading

import pytest

from inferd.rpc import worker_pool
from inferd.rpc.worker_pool import WorkerPool
from tests.patience import PATIENCE_S


@pytest.fixture
def start():
    pools = []

    def make(**settings):
        pool = WorkerPool("test-pool", **settings)
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        pool.stop(PATIENCE_S)


def test_finishes_queued_work_at_the_stop(start):
    """Afterwards no thread is left."""
    pool = start(threads=2)
    done = []
    for number in range(10):
        assert pool.submit(lambda number=number: done.append(number))
    assert pool.stop(PATIENCE_S)
    assert sorted(done) == list(range(10))
    assert running() == set()


def test_prepares_each_thread(start):
    """Before its first work."""
    prepared = []
    pool = start(threads=1, prepare=lambda: prepared.append(threading.current_thread()))
    worked_in = []
    for _ in range(2):
        pool.submit(lambda: worked_in.append(threading.current_thread()))
    assert pool.stop(PATIENCE_S)
    assert prepared * 2 == worked_in


@pytest.mark.parametrize("error", [RuntimeError("x"), SystemExit(1)])
def test_thread_survives_exceptions_of_work(start, caplog, error):
    """The same, only thread does the next work."""
    pool = start(threads=1)
    done = threading.Event()

    def fail():
        raise error

    pool.submit(fail)
    pool.submit(done.set)
    assert done.wait(PATIENCE_S)
    assert "work in a pool thread failed" in caplog.text


def test_starts_and_ends_threads_on_demand(start, monkeypatch):
    """None before the first work, one for each work at a time, none when idle for a while."""
    monkeypatch.setattr(worker_pool, "IDLE_S", 0.01)
    pool = start(threads=2)
    assert running() == set()
    for _ in range(3):
        begun, release = threading.Semaphore(0), threading.Event()

        def block(begun=begun, release=release):
            begun.release()
            release.wait(PATIENCE_S)

        for _ in range(3):
            pool.submit(block)
        assert begun.acquire(timeout=PATIENCE_S)
        assert begun.acquire(timeout=PATIENCE_S)
        threads = running()
        assert len(threads) == 2
        release.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert begun.acquire(timeout=PATIENCE_S)
        assert running() == set()


def running():
    return {thread for thread in threading.enumerate() if thread.name.startswith("test-pool")}


def test_queue_is_bounded(start):
    """With all threads busy, work above the bound is rejected."""
    pool = start(threads=1, max_waiting=2)
    begun, release = threading.Event(), threading.Event()

    def block():
        begun.set()
        release.wait(PATIENCE_S)

    assert pool.submit(block)
    assert begun.wait(PATIENCE_S)
    assert [pool.submit(lambda: None) for _ in range(3)] == [True, True, False]
    release.set()


def test_stop_times_out(start):
    """Work that does not end is abandoned and reported."""
    pool = start(threads=1)
    release = threading.Event()
    pool.submit(lambda: release.wait(PATIENCE_S))
    assert not pool.stop(0.0)
    release.set()

"""The threads of blocking handlers."""

import threading

import pytest

from inferd.rpc.worker_pool import WorkerPool


@pytest.fixture
def start():
    pools = []

    def make(**settings):
        pool = WorkerPool("test-pool", **settings)
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        pool.stop(5.0)


def test_work_is_done_and_threads_end(start):
    """What was submitted before the stop is done; then no thread is left."""
    pool = start(threads=2)
    done = []
    for number in range(10):
        assert pool.submit(lambda number=number: done.append(number))
    assert pool.stop(5.0)
    assert sorted(done) == list(range(10))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("test-pool")]


@pytest.mark.parametrize("error", [RuntimeError("x"), SystemExit(1)])
def test_a_thread_survives_what_work_raises(start, caplog, error):
    """The next work is done by the same, only thread."""
    pool = start(threads=1)
    done = threading.Event()

    def fail():
        raise error

    pool.submit(fail)
    pool.submit(done.set)
    assert done.wait(5.0)
    assert "failed in a pool thread" in caplog.text


def test_what_waits_is_bounded(start):
    """With the threads busy, no more than the bound is taken in."""
    pool = start(threads=1, max_waiting=2)
    begun, release = threading.Event(), threading.Event()

    def block():
        begun.set()
        release.wait(5.0)

    assert pool.submit(block)
    assert begun.wait(5.0)
    assert [pool.submit(lambda: None) for _ in range(3)] == [True, True, False]
    release.set()


def test_a_stop_does_not_wait_for_ever(start):
    """Work that does not end is left behind, and that is said."""
    pool = start(threads=1)
    release = threading.Event()
    pool.submit(lambda: release.wait(30.0))
    assert not pool.stop(0.0)
    release.set()

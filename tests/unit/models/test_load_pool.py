"""Which threads run the jobs of a load pool."""

import threading

import pytest

from inferd.models.load_pool import LoadPool
from tests.patience import PATIENCE_S, eventually


@pytest.fixture
def pool():
    made = LoadPool(2)
    yield made
    made.stop()


class Job:
    """A job that ends when it is told to, or at once."""

    def __init__(self, *, waits: bool = False) -> None:
        self.begun, self.end = threading.Event(), threading.Event()
        self.thread: threading.Thread | None = None
        if not waits:
            self.end.set()

    def __call__(self) -> None:
        self.thread = threading.current_thread()
        self.begun.set()
        assert self.end.wait(PATIENCE_S)


def begin(pool: LoadPool, *jobs: Job) -> None:
    for job in jobs:
        pool.submit(job)
    for job in jobs:
        assert job.begun.wait(PATIENCE_S)


def wait_until_idle(pool: LoadPool) -> None:
    eventually(lambda: pool._has_idle_thread, "a thread waits for a job")


def test_one_after_another_in_one_thread(pool):
    """So that the C library's heap for it is used again."""
    pool.start()
    jobs = [Job() for _ in range(5)]
    for job in jobs:
        begin(pool, job)
        wait_until_idle(pool)
    assert len({job.thread for job in jobs}) == 1


def test_side_by_side(pool):
    """As many as there may be threads; of those without work one is left."""
    pool.start()
    jobs = [Job(waits=True), Job(waits=True)]
    begin(pool, *jobs)
    late = Job()
    pool.submit(late)
    assert not late.begun.is_set()
    jobs[0].end.set()
    assert late.begun.wait(PATIENCE_S)
    wait_until_idle(pool)
    jobs[1].end.set()
    assert jobs[1].thread is not None
    jobs[1].thread.join(PATIENCE_S)
    assert not jobs[1].thread.is_alive()
    begin(pool, *(again := [Job(waits=True), Job(waits=True)]))
    assert jobs[0].thread in {job.thread for job in again}
    for job in again:
        job.end.set()


def test_nothing_before_the_start(pool):
    """Then in the order of submission."""
    jobs = [Job(), Job()]
    for job in jobs:
        pool.submit(job)
    assert not any(job.begun.is_set() for job in jobs)
    pool.start()
    for job in jobs:
        assert job.begun.wait(PATIENCE_S)


def test_stop_ends_the_thread(pool):
    """Whether or not it waits."""
    pool.start()
    begin(pool, job := Job())
    pool.stop()
    assert job.thread is not None
    job.thread.join(PATIENCE_S)
    assert not job.thread.is_alive()

"""Stages side by side: order, bounds, and their end."""

import threading
from collections.abc import Iterator

import pytest

from inferd.batch.pipeline import Pipeline
from tests.patience import PATIENCE_S


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("inferd-batch")]


def _doubled(items: Iterator[int]) -> Iterator[int]:
    for item in items:
        yield 2 * item


def test_items_pass_through_all_stages_in_order() -> None:
    """Each item arrives once, in order, and no thread is left."""
    with Pipeline() as pipeline:
        numbers = pipeline.stage("read", iter(range(100)))
        assert list(pipeline.stage("run", _doubled(numbers))) == list(range(0, 200, 2))
    assert not _threads()


def test_stages_run_at_the_same_time() -> None:
    """A stage begins with its next item while the one after it still has the last."""
    both = threading.Barrier(2)

    def read() -> Iterator[int]:
        yield 1
        both.wait(PATIENCE_S)
        yield 2

    def run(items: Iterator[int]) -> Iterator[int]:
        for item in items:
            if item == 1:
                both.wait(PATIENCE_S)
            yield item

    with Pipeline() as pipeline:
        assert list(pipeline.stage("run", run(pipeline.stage("read", read())))) == [1, 2]


def test_stage_is_no_more_than_its_bound_ahead() -> None:
    """One item waits in the stage and one is with its reader: no third is made."""
    made: list[int] = []
    second = threading.Event()

    def read() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            if number == 2:
                second.set()
            yield number

    with Pipeline(ahead=1) as pipeline:
        items = pipeline.stage("read", read())
        assert next(items) == 0
        assert second.wait(PATIENCE_S)
        assert made == [0, 1, 2]


def test_error_arrives_in_its_turn() -> None:
    """What came before the error of the first stage is still handed out by the last."""

    def read() -> Iterator[int]:
        yield 1
        raise ValueError("damaged")

    with Pipeline() as pipeline:
        items = pipeline.stage("run", _doubled(pipeline.stage("read", read())))
        assert next(items) == 2
        with pytest.raises(ValueError, match="damaged"):
            next(items)
    assert not _threads()


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_leaving_ends_stages_that_wait(taken: int) -> None:
    """All stages end when the reader leaves, wherever they wait, and each generator is closed in its own thread."""
    closed: list[str] = []

    def endless() -> Iterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            closed.append(threading.current_thread().name)

    def job() -> None:
        with Pipeline() as pipeline:
            items = pipeline.stage("run", _doubled(pipeline.stage("read", endless())))
            for _ in range(taken):
                next(items)
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        job()
    assert closed == ["inferd-batch-read"]
    assert not _threads()


def test_leaving_ends_a_stage_that_waits_for_the_one_before() -> None:
    """A stage that waits for an item ends, although the stage before it is busy with its own work."""
    release = threading.Event()
    is_waiting = threading.Event()

    def read() -> Iterator[int]:
        is_waiting.set()
        release.wait(PATIENCE_S)
        yield 1

    with Pipeline() as pipeline:
        pipeline.stage("run", _doubled(pipeline.stage("read", read())))
        assert is_waiting.wait(PATIENCE_S)
        release.set()
    assert not _threads()

"""Lines reach the sink, in order, without anybody waiting for it."""

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

import pytest

from inferd.observability.line_writer import LineWriter, write_to
from tests.unit.observability.fakes import Sink


def lines(records: Sequence[object]) -> bytes:
    return b"".join(f"{record}\n".encode() for record in records)


def picky(records: Sequence[int]) -> bytes:
    """Lines of even numbers; a batch with an odd one cannot be rendered."""
    assert not any(record % 2 for record in records)
    return lines(records)


class Gate(Sink):
    """A sink that is stuck until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, data: bytes) -> None:
        self.entered.set()
        self.open.wait()
        super().__call__(data)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for descriptor in (read, write):
        try:
            os.close(descriptor)
        except OSError:
            assert descriptor == read, "only the tests that break the pipe close an end"


def test_waiting_lines_are_written_at_once() -> None:
    """One write for many lines, in their order."""
    sink = Sink()
    writer = LineWriter(sink)
    for number in range(100):
        writer.submit(lines, number)
    assert writer.stop()
    assert sink.lines == [str(number).encode() for number in range(100)]
    assert len(sink.writes) == 1


def test_lines_that_come_during_a_write_gather_for_the_next() -> None:
    """A slow sink makes larger writes, not more of them."""
    gate = Gate()
    writer = LineWriter(gate, gather_s=0)
    writer.start()
    writer.submit(lines, "first")
    assert gate.entered.wait(10)
    for number in range(100):
        writer.submit(lines, number)
    gate.open.set()
    assert writer.stop()
    assert [write.count(b"\n") for write in gate.writes] == [1, 100]


def test_a_burst_from_many_threads_loses_nothing() -> None:
    """All lines arrive, and those of one thread in its order."""
    sink = Sink()
    writer = LineWriter(sink, gather_s=0.001)
    writer.start()

    def burst(name: int) -> None:
        for number in range(5000):
            writer.submit(lines, f"{name} {number}")

    threads = [threading.Thread(target=burst, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.stop()
    assert writer.dropped == 0
    written = [tuple(map(int, text.split())) for text in sink.lines]
    for name in range(6):
        assert [number for who, number in written if who == name] == list(range(5000))


def test_the_bound_is_exact_under_a_burst() -> None:
    """With a sink that is stuck, what is over the bound is dropped and counted, whichever thread it came from."""
    gate = Gate()
    writer = LineWriter(gate, max_lines=500, gather_s=0)
    writer.start()
    writer.submit(lines, "first")
    assert gate.entered.wait(10)
    threads = [
        threading.Thread(target=lambda: [writer.submit(lines, number) for number in range(1000)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.dropped == 4000 - 500
    gate.open.set()
    assert writer.stop()
    assert len(gate.lines) == 501


def test_a_broken_pipe_is_survived(pipe: tuple[int, int]) -> None:
    """Lines that nobody can read any more are counted, and logging goes on without an error."""
    read, write = pipe
    os.close(read)
    writer = LineWriter(write_to(write))
    for number in range(3):
        writer.submit(lines, number)
    assert writer.stop()
    assert writer.dropped == 3


def test_writing_goes_on_when_the_sink_recovers() -> None:
    """A full disk loses the lines of its time only."""
    sink = Sink()
    failures = [OSError(28, "No space left on device")]

    def flaky(data: bytes) -> None:
        if failures:
            raise failures.pop()
        sink(data)

    writer = LineWriter(flaky)
    writer.submit(lines, "lost")
    writer.stop()
    writer.submit(lines, "kept")
    assert (sink.lines, writer.dropped) == ([b"kept"], 1)


def test_neighbours_of_a_kind_are_rendered_in_one_go() -> None:
    """And the order of what was submitted is kept all the same."""
    sink, gos = Sink(), []

    def counted(records: Sequence[object]) -> bytes:
        gos.append(list(records))
        return lines(records)

    writer = LineWriter(sink)
    for number in (1, 2):
        writer.submit(counted, number)
    writer.submit(b"".join, b"other\n")
    writer.submit(counted, 3)
    assert writer.stop()
    assert gos == [[1, 2], [3]]
    assert sink.lines == [b"1", b"2", b"other", b"3"]
    assert len(sink.writes) == 1


def test_a_record_that_cannot_be_rendered_takes_only_neighbours_of_its_kind_along() -> None:
    """They are counted; the rest of the same write is written, and so is what comes later."""
    sink = Sink()
    writer = LineWriter(sink)
    writer.submit(picky, 0)
    writer.submit(lines, "between")
    for number in (2, 3, 4):
        writer.submit(picky, number)
    writer.submit(lines, "after")
    writer.submit(picky, 6)
    assert writer.stop()
    assert (sink.lines, writer.dropped) == ([b"0", b"between", b"after", b"6"], 3)
    writer.submit(picky, 8)
    assert (sink.lines[-1], writer.dropped) == (b"8", 3)


def test_what_can_be_neither_rendered_nor_written_is_counted_once() -> None:
    """Each record is one line that is missing."""

    def fail(_data: bytes) -> None:
        raise OSError(28, "No space left on device")

    writer = LineWriter(fail)
    writer.submit(picky, 1)
    writer.submit(lines, 2)
    assert writer.stop()
    assert writer.dropped == 2


def test_after_the_end_lines_are_written_at_once() -> None:
    """What is logged while the process ends is not lost."""
    sink = Sink()
    writer = LineWriter(sink)
    writer.stop()
    writer.submit(lines, "late")
    assert sink.lines == [b"late"]


def test_stop_does_not_wait_for_ever() -> None:
    """A reader that is stuck holds up the end of the process no longer than the timeout."""
    gate = Gate()
    writer = LineWriter(gate, gather_s=0)
    writer.start()
    writer.submit(lines, "stuck")
    assert gate.entered.wait(10)
    assert not writer.stop(timeout_s=0.01)
    gate.open.set()
    assert writer.stop()
    assert gate.lines == [b"stuck"]


def test_a_process_that_just_ends_has_written_its_lines() -> None:
    """Nobody calls stop, and the gathering has only begun."""
    program = (
        "from inferd.observability.line_writer import LineWriter, write_to\n"
        "writer = LineWriter(write_to(1), gather_s=60)\n"
        "writer.start()\n"
        "writer.submit(b''.join, b'last words')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=30)
    assert done.stdout == b"last words"


def test_a_pipe_that_does_not_block_gets_every_byte(pipe: tuple[int, int]) -> None:
    """More than fits is written bit by bit as the reader makes room, and no line is torn."""
    read, write = pipe
    fcntl.fcntl(write, fcntl.F_SETFL, os.O_NONBLOCK)
    data = os.urandom(300_000)
    thread = threading.Thread(target=write_to(write), args=(data,))
    thread.start()
    received = b""
    while len(received) < len(data):
        received += os.read(read, 65536)
    thread.join()
    assert received == data

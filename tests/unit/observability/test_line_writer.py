"""Lines reach the sink, in order, without anybody waiting for it."""

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from inferd.observability.line_writer import LineWriter, write_to
from tests.unit.observability.fakes import Sink


def line(text: object) -> bytes:
    return f"{text}\n".encode()


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
        writer.submit(line(number))
    assert writer.stop()
    assert sink.lines == [str(number).encode() for number in range(100)]
    assert len(sink.writes) == 1


def test_lines_that_come_during_a_write_gather_for_the_next() -> None:
    """A slow sink makes larger writes, not more of them."""
    gate = Gate()
    writer = LineWriter(gate, gather_s=0)
    writer.start()
    writer.submit(line("first"))
    assert gate.entered.wait(10)
    for number in range(100):
        writer.submit(line(number))
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
            writer.submit(line(f"{name} {number}"))

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
    writer.submit(line("first"))
    assert gate.entered.wait(10)
    threads = [
        threading.Thread(target=lambda: [writer.submit(line(number)) for number in range(1000)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.dropped == 4000 - 500
    gate.open.set()
    assert writer.stop()
    assert len(gate.lines) == 501


def test_several_lines_at_once_are_counted_as_such() -> None:
    """They are taken or dropped together."""
    writer = LineWriter(Sink(), max_lines=3)
    writer.submit(b"1\n2\n")
    writer.submit(b"3\n4\n")
    writer.submit(b"5\n")
    assert writer.dropped == 2
    writer.submit(b"6\n")
    assert writer.dropped == 3


def test_a_broken_pipe_is_survived(pipe: tuple[int, int]) -> None:
    """Lines that nobody can read any more are counted, and logging goes on without an error."""
    read, write = pipe
    os.close(read)
    writer = LineWriter(write_to(write))
    for number in range(3):
        writer.submit(line(number))
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
    writer.submit(line("lost"))
    writer.stop()
    writer.submit(line("kept"))
    assert (sink.lines, writer.dropped) == ([b"kept"], 1)


def test_after_the_end_lines_are_written_at_once() -> None:
    """What is logged while the process ends is not lost."""
    sink = Sink()
    writer = LineWriter(sink)
    writer.stop()
    writer.submit(line("late"))
    assert sink.lines == [b"late"]


def test_lines_that_come_while_the_writer_stops_are_written() -> None:
    """By its thread or by whoever brings them: none may be left behind, whatever the moment."""
    for _ in range(50):
        sink = Sink()
        writer = LineWriter(sink, gather_s=0)
        writer.start()
        began = threading.Event()

        def bring(writer: LineWriter = writer, began: threading.Event = began) -> None:
            for number in range(200):
                writer.submit(line(number))
                began.set()

        threads = [threading.Thread(target=bring) for _ in range(3)]
        for thread in threads:
            thread.start()
        began.wait()
        assert writer.stop()
        for thread in threads:
            thread.join()
        assert (len(sink.lines), writer.dropped) == (600, 0)


def test_stop_does_not_wait_for_ever() -> None:
    """A reader that is stuck holds up the end of the process no longer than the timeout."""
    gate = Gate()
    writer = LineWriter(gate, gather_s=0)
    writer.start()
    writer.submit(line("stuck"))
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
        "writer.submit(b'last words')\n"
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

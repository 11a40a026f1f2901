"""Lines reach the sink, in order, without anybody waiting for it."""

import fcntl
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import pytest

from inferd.observability.line_writer import LineWriter, Record, join, write_to
from tests.unit.observability.fakes import Sink


def lines(records: Sequence[Record]) -> bytes:
    return b"".join(f"{text}\n".encode() for _, text in records)


def picky(records: Sequence[Record]) -> bytes:
    """Lines of even numbers; a batch with an odd one cannot be rendered."""
    assert not any(number % 2 for _, number in records)
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
        writer.submit((lines, number))
    assert writer.stop()
    assert sink.lines == [str(number).encode() for number in range(100)]
    assert len(sink.writes) == 1


def test_lines_that_come_during_a_write_gather_for_the_next() -> None:
    """A slow sink makes larger writes, not more of them."""
    gate = Gate()
    writer = LineWriter(gate, gather_s=0)
    writer.start()
    writer.submit((lines, "first"))
    assert gate.entered.wait(10)
    for number in range(100):
        writer.submit((lines, number))
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
            writer.submit((lines, f"{name} {number}"))

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


def test_a_burst_does_not_pass_the_bound() -> None:
    """With a sink that is stuck, what is over it is dropped and counted, but for one line of each thread at most."""
    gate = Gate()
    writer = LineWriter(gate, max_lines=500, gather_s=0)
    writer.start()
    writer.submit((lines, "first"))
    assert gate.entered.wait(10)
    threads = [
        threading.Thread(target=lambda: [writer.submit((lines, number)) for number in range(1000)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 <= 4000 - 500 - writer.dropped <= 4
    gate.open.set()
    assert writer.stop()
    assert len(gate.lines) + writer.dropped == 4001


def test_a_broken_pipe_is_survived(pipe: tuple[int, int]) -> None:
    """Lines that nobody can read any more are counted, and logging goes on without an error."""
    read, write = pipe
    os.close(read)
    writer = LineWriter(write_to(write))
    for number in range(3):
        writer.submit((lines, number))
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
    writer.submit((lines, "lost"))
    writer.stop()
    writer.submit((lines, "kept"))
    assert (sink.lines, writer.dropped) == ([b"kept"], 1)


def test_neighbours_of_a_kind_are_rendered_in_one_go() -> None:
    """And the order of what was submitted is kept all the same."""
    sink, gos = Sink(), []

    def counted(records: Sequence[Record]) -> bytes:
        gos.append([number for _, number in records])
        return lines(records)

    writer = LineWriter(sink)
    for number in (1, 2):
        writer.submit((counted, number))
    writer.submit((join, b"other\n"))
    writer.submit((counted, 3))
    assert writer.stop()
    assert gos == [[1, 2], [3]]
    assert sink.lines == [b"1", b"2", b"other", b"3"]
    assert len(sink.writes) == 1


def test_a_record_that_cannot_be_rendered_takes_only_neighbours_of_its_kind_along() -> None:
    """They are counted; the rest of the same write is written, and so is what comes later."""
    sink = Sink()
    writer = LineWriter(sink)
    writer.submit((picky, 0))
    writer.submit((lines, "between"))
    for number in (2, 3, 4):
        writer.submit((picky, number))
    writer.submit((lines, "after"))
    writer.submit((picky, 6))
    assert writer.stop()
    assert (sink.lines, writer.dropped) == ([b"0", b"between", b"after", b"6"], 3)
    writer.submit((picky, 8))
    assert (sink.lines[-1], writer.dropped) == (b"8", 3)


def test_what_can_be_neither_rendered_nor_written_is_counted_once() -> None:
    """Each record is one line that is missing."""

    def fail(_data: bytes) -> None:
        raise OSError(28, "No space left on device")

    writer = LineWriter(fail)
    writer.submit((picky, 1))
    writer.submit((lines, 2))
    assert writer.stop()
    assert writer.dropped == 2


def test_after_the_end_lines_are_written_at_once() -> None:
    """What is logged while the process ends is not lost."""
    sink = Sink()
    writer = LineWriter(sink)
    writer.stop()
    writer.submit((lines, "late"))
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
                writer.submit((lines, number))
                began.set()

        threads = [threading.Thread(target=bring) for _ in range(3)]
        for thread in threads:
            thread.start()
        began.wait()
        assert writer.stop()
        for thread in threads:
            thread.join()
        assert (len(sink.lines), writer.dropped) == (600, 0)


class Window(deque[Record]):
    """Lines that look empty for a moment, in which another one comes."""

    def __init__(self, come: Callable[[], object]) -> None:
        super().__init__()
        self._come: Callable[[], object] | None = come

    def __len__(self) -> int:
        if (come := self._come) is not None and threading.current_thread().name == "log-writer":
            self._come = None
            come()
            return 0
        return super().__len__()


def test_a_line_that_comes_as_the_writer_lies_down_wakes_it() -> None:
    """It has found nothing to write, and is not told of the line because it is still awake."""
    sink, written = Sink(), threading.Event()
    writer = LineWriter(lambda data: (sink(data), written.set()), gather_s=0)
    writer._lines = Window(lambda: writer.submit((lines, "late")))
    writer._awake = True
    writer._wake.set()
    writer.start()
    assert written.wait(10)
    assert writer.stop()
    assert sink.lines == [b"late"]


def test_stop_does_not_wait_for_ever() -> None:
    """A reader that is stuck holds up the end of the process no longer than the timeout."""
    gate = Gate()
    writer = LineWriter(gate, gather_s=0)
    writer.start()
    writer.submit((lines, "stuck"))
    assert gate.entered.wait(10)
    assert not writer.stop(timeout_s=0.01)
    gate.open.set()
    assert writer.stop()
    assert gate.lines == [b"stuck"]


def test_a_process_that_just_ends_has_written_its_lines() -> None:
    """Nobody calls stop, and the gathering has only begun."""
    program = (
        "from inferd.observability.line_writer import LineWriter, join, write_to\n"
        "writer = LineWriter(write_to(1), gather_s=60)\n"
        "writer.start()\n"
        "writer.submit((join, b'last words'))\n"
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

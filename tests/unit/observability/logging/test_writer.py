"""Log lines reach the sink in order, and no caller waits for it."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferd.observability.logging.writer import LineWriter, write_to
from tests.patience import PATIENCE_S
from tests.unit.observability.fakes import Sink


def line(text: object) -> bytes:
    return f"{text}\n".encode()


class Gate(Sink):
    """A sink that blocks until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, data: memoryview) -> int:
        self.entered.set()
        self.open.wait()
        return super().__call__(data)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for descriptor in (read, write):
        try:
            os.close(descriptor)
        except OSError:
            assert descriptor == read, "only the tests that break the pipe close an end"


def test_writes_queued_lines_at_once() -> None:
    """One write for many lines, in order."""
    sink = Sink()
    writer = LineWriter(sink)
    for number in range(100):
        writer.submit(line(number))
    assert writer.stop()
    assert sink.lines == [str(number).encode() for number in range(100)]
    assert len(sink.writes) == 1


def test_lines_during_a_write_go_into_the_next_one() -> None:
    """A slow sink makes larger writes, not more of them."""
    gate = Gate()
    writer = LineWriter(gate, delay_s=0)
    writer.start()
    writer.submit(line("first"))
    assert gate.entered.wait(PATIENCE_S)
    for number in range(100):
        writer.submit(line(number))
    gate.open.set()
    assert writer.stop()
    assert [write.count(b"\n") for write in gate.writes] == [1, 100]


def test_burst_from_many_threads() -> None:
    """All lines arrive, those of one thread in order."""
    sink = Sink()
    writer = LineWriter(sink, delay_s=0.001)
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


def test_queue_bound_is_exact_under_a_burst() -> None:
    """With a stuck sink, lines beyond the bound are dropped and counted, from any thread."""
    gate = Gate()
    writer = LineWriter(gate, max_lines=500, delay_s=0)
    writer.start()
    writer.submit(line("first"))
    assert gate.entered.wait(PATIENCE_S)
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


def test_counts_lines_of_a_block() -> None:
    """A block is queued or dropped as a whole."""
    writer = LineWriter(Sink(), max_lines=3)
    writer.submit(b"1\n2\n")
    writer.submit(b"3\n4\n")
    writer.submit(b"5\n")
    assert writer.dropped == 2
    writer.submit(b"6\n")
    assert writer.dropped == 3


def test_survives_broken_pipe(pipe: tuple[int, int]) -> None:
    """Lines without a reader are counted, and logging continues without an error."""
    read, write = pipe
    os.close(read)
    writer = LineWriter(write_to(write))
    for number in range(3):
        writer.submit(line(number))
    assert writer.stop()
    assert writer.dropped == 3


def test_recovers_with_the_sink() -> None:
    """A full disk drops lines only while it is full."""
    sink = Sink()
    failures = [OSError(28, "No space left on device")]

    def flaky(data: memoryview) -> int:
        if failures:
            raise failures.pop()
        return sink(data)

    writer = LineWriter(flaky)
    writer.submit(line("lost"))
    writer.stop()
    writer.submit(line("kept"))
    assert (sink.lines, writer.dropped) == ([b"kept"], 1)


def test_writes_synchronously_after_stop() -> None:
    """What is logged while the process ends is not lost."""
    sink = Sink()
    writer = LineWriter(sink)
    writer.stop()
    writer.submit(line("late"))
    assert sink.lines == [b"late"]


def test_writes_lines_submitted_during_stop() -> None:
    """By its thread or by the submitting one, at any moment."""
    for _ in range(50):
        sink = Sink()
        writer = LineWriter(sink, delay_s=0)
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


def test_stop_has_a_timeout() -> None:
    """A stuck reader delays the end of the process no longer."""
    gate = Gate()
    writer = LineWriter(gate, delay_s=0)
    writer.start()
    writer.submit(line("stuck"))
    assert gate.entered.wait(PATIENCE_S)
    assert not writer.stop(timeout_s=0.01)
    gate.open.set()
    assert writer.stop()
    assert gate.lines == [b"stuck"]


def test_writes_lines_at_exit() -> None:
    """Without a call of stop, during the delay."""
    program = (
        "from inferd.observability.logging.writer import LineWriter, write_to\n"
        "writer = LineWriter(write_to(1), delay_s=60)\n"
        "writer.start()\n"
        "writer.submit(b'last words')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=PATIENCE_S)
    assert done.stdout == b"last words"


def test_non_blocking_pipe(pipe: tuple[int, int]) -> None:
    """Partial writes continue as the reader makes room, and no line is torn."""
    read, write = pipe
    fcntl.fcntl(write, fcntl.F_SETFL, os.O_NONBLOCK)
    lines = [line(f"{number} {'x' * 300}") for number in range(1000)]
    writer = LineWriter(write_to(write))
    for each in lines:
        writer.submit(each)
    thread = threading.Thread(target=writer.stop)
    thread.start()
    received = b""
    while len(received) < sum(map(len, lines)):
        received += os.read(read, 65536)
    thread.join()
    assert (received, writer.dropped) == (b"".join(lines), 0)


class Disk:
    """A file on a disk with limited room, which accepts at most ``at_once`` bytes per write."""

    def __init__(self, room: int, *, at_once: int = 1_000_000) -> None:
        self.content = b""
        self.room = room
        self.full: OSError = OSError(errno.ENOSPC, "No space left on device")
        self._at_once = at_once

    def __call__(self, data: memoryview) -> int:
        taken = bytes(data[: min(self.room, self._at_once)])
        if not taken:
            raise self.full
        self.room -= len(taken)
        self.content += taken
        return len(taken)


def write(writer: LineWriter, *numbers: int) -> None:
    """Have lines of five bytes each written in one go, on a writer whose end has come."""
    writer.submit(b"".join(line(f"{number:04}") for number in numbers))


@pytest.mark.parametrize("at_once", [1, 3, 5, 7, 100])
@pytest.mark.parametrize("room", range(21))
def test_full_disk_tears_no_line(room: int, at_once: int) -> None:
    """A partly written line is completed as soon as there is room; other lines are dropped whole and counted."""
    disk = Disk(room, at_once=at_once)
    writer = LineWriter(disk)
    writer.stop()
    write(writer, 1, 2, 3, 4)
    whole, begun = divmod(room, 5)
    assert writer.dropped == 4 - whole
    write(writer, 5)
    assert writer.dropped == 5 - whole
    disk.room = 1000
    write(writer, 6, 7)
    written = [*range(1, 1 + whole + bool(begun)), 6, 7]
    assert disk.content == b"".join(line(f"{number:04}") for number in written)
    assert writer.dropped == 7 - len(written)


def test_counts_unfinished_line() -> None:
    """At the end, when nothing more is written."""
    disk = Disk(7)
    writer = LineWriter(disk)
    write(writer, 1, 2, 3)
    assert writer.stop()
    assert (writer.dropped, disk.content) == (2, b"0001\n00")


def test_new_reader_starts_with_a_whole_line() -> None:
    """The rest of a line is dropped if its reader has gone."""
    pipe = Disk(7)
    pipe.full = BrokenPipeError(errno.EPIPE, "Broken pipe")
    writer = LineWriter(pipe)
    writer.stop()
    write(writer, 1, 2, 3)
    assert writer.dropped == 2
    pipe.room, pipe.content = 100, b""
    write(writer, 4)
    assert (pipe.content, writer.dropped) == (b"0004\n", 2)


def test_log_call_during_a_write() -> None:
    """Finalizers run at any moment, also in the writing thread."""
    disk = Disk(1000, at_once=3)
    found = [9]

    def interrupted(data: memoryview) -> int:
        if found:
            write(writer, found.pop())
        return disk(data)

    writer = LineWriter(interrupted)
    writer.stop()
    write(writer, 1)
    assert disk.content == b"0001\n0009\n"


_FILLS_A_FILE = """
import resource, sys
from inferd.observability.logging.writer import LineWriter, write_to
resource.setrlimit(resource.RLIMIT_FSIZE, (10_007, resource.RLIM_INFINITY))
writer = LineWriter(write_to(1))
for number in range(1500):
    writer.submit(f"{number:09}\\n".encode())
assert writer.stop()
print(writer.dropped, file=sys.stderr)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.submit(b"after all\\n")
print(writer.dropped, file=sys.stderr)
"""


def test_real_file_size_limit(tmp_path: Path) -> None:
    """The system accepts part of a write, as on a full disk, and rejects the next one."""
    file = tmp_path / "log"
    with file.open("wb") as output:
        done = subprocess.run(
            [sys.executable, "-c", _FILLS_A_FILE], stdout=output, stderr=subprocess.PIPE, check=True, timeout=PATIENCE_S
        )
    lines = file.read_bytes().splitlines()
    assert lines == [*(f"{number:09}".encode() for number in range(1001)), b"after all"]
    assert done.stderr.split() == [b"500", b"499"]

"""Calls that ended are shown, each once, to everybody who counts or logs them."""

import subprocess
import sys
import threading
from collections.abc import Sequence

import grpc
import pytest

from inferd.observability import recorder as module
from inferd.observability.calls import Call, StreamResult, result_listeners
from inferd.observability.recorder import CallRecorder, EndedCall
from tests.patience import PATIENCE_S
from tests.unit.call_context import call_context
from tests.unit.observability.fakes import INFER, FakeCall

OK = grpc.StatusCode.OK


class Consumer:
    """Keeps what it is shown."""

    def __init__(self) -> None:
        self.goes: list[Sequence[EndedCall]] = []

    def __call__(self, calls: Sequence[EndedCall]) -> None:
        self.goes.append(calls)

    @property
    def details(self) -> list[str]:
        return [details for calls in self.goes for _, _, _, _, _, details, *_ in calls]


@pytest.fixture
def recorder() -> CallRecorder:
    return CallRecorder(delay_s=0)


@pytest.fixture
def consumer(recorder: CallRecorder) -> Consumer:
    consumer = Consumer()
    recorder.add(consumer)
    return consumer


def test_a_call_is_taken_down(recorder: CallRecorder, consumer: Consumer) -> None:
    """With its times, what it was, and what was found out about it."""
    call = FakeCall(context=call_context(model="digits"))
    recorder.started(call)
    recorder.finished(call, grpc.StatusCode.NOT_FOUND, "no such model")
    assert recorder.flush()
    peer = b"ipv4:127.0.0.1:40000"
    assert consumer.goes == [
        [(100.5, 100.0, INFER, peer, grpc.StatusCode.NOT_FOUND, "no such model", call.context, None)]
    ]


def test_many_calls_are_shown_in_one_go(recorder: CallRecorder, consumer: Consumer) -> None:
    """In the order in which they ended, and each once."""
    for number in range(100):
        recorder.finished(FakeCall(), OK, str(number))
    assert recorder.flush()
    assert not recorder.flush()
    assert consumer.details == [str(number) for number in range(100)]
    assert len(consumer.goes) == 1


def test_a_burst_from_many_threads_loses_nothing(recorder: CallRecorder, consumer: Consumer) -> None:
    """While the thread works them off and scrapes do so, too; the end shows what is left."""
    recorder.start()

    def burst(name: int) -> None:
        for number in range(2000):
            recorder.finished(FakeCall(), OK, f"{name} {number}")
            if number % 100 == 0:
                recorder.flush()

    threads = [threading.Thread(target=burst, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorder.stop()
    assert sorted(consumer.details) == sorted(f"{name} {number}" for name in range(4) for number in range(2000))


def test_a_process_that_just_ends_has_shown_its_calls() -> None:
    """Nobody calls stop, and the gathering has only begun."""
    program = (
        "from inferd.observability.recorder import CallRecorder\n"
        "from tests.unit.observability.fakes import FakeCall\n"
        "recorder = CallRecorder(delay_s=60)\n"
        "recorder.add(lambda calls: print(len(calls), end=''))\n"
        "recorder.start()\n"
        "recorder.finished(FakeCall(), None, '')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=PATIENCE_S)
    assert done.stdout == b"1"


def test_a_consumer_that_fails_takes_nothing_from_the_others(
    recorder: CallRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    """And says so in the log."""

    def fail(_calls: Sequence[EndedCall]) -> None:
        raise RuntimeError("broken")

    consumer = Consumer()
    recorder.add(fail)
    recorder.add(consumer)
    recorder.finished(FakeCall(), OK, "first")
    recorder.flush()
    recorder.finished(FakeCall(), OK, "second")
    recorder.flush()
    assert consumer.details == ["first", "second"]
    assert [record.exc_info is not None for record in caplog.records] == [True, True]


def test_what_waits_is_bounded(recorder: CallRecorder, consumer: Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the thread does not come to run, whoever ends a call works them off."""
    monkeypatch.setattr(module, "_MAX_PENDING", 10)
    for number in range(25):
        recorder.finished(FakeCall(), OK, str(number))
    assert [len(calls) for calls in consumer.goes] == [11, 11]


def test_results_of_streams_are_told_to_who_wants_them(recorder: CallRecorder) -> None:
    """By streams that begin from then on; otherwise they leave nothing with the call."""

    def listen(_call: Call, _result: StreamResult) -> None:
        pass

    before, after = FakeCall(), FakeCall()
    recorder.started(before)
    recorder.result_listener = listen
    recorder.started(after)
    assert before.annotations == {}
    assert result_listeners(after) == (listen,)

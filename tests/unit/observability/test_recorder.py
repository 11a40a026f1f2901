"""Finished calls are delivered once to each consumer."""

import subprocess
import sys
import threading
from collections.abc import Sequence

import grpc
import pytest

from inferd.observability import recorder as module
from inferd.observability.recorder import CallRecorder, FinishedCall
from inferd.observability.stream_results import StreamResult, result_listeners
from inferd.rpc import Call
from tests.patience import PATIENCE_S
from tests.unit.call_context import call_context
from tests.unit.observability.fakes import INFER, FakeCall

OK = grpc.StatusCode.OK


class Consumer:
    """Keeps the calls that it gets."""

    def __init__(self) -> None:
        self.goes: list[Sequence[FinishedCall]] = []

    def __call__(self, calls: Sequence[FinishedCall]) -> None:
        self.goes.append(calls)

    @property
    def details(self) -> list[str]:
        return [call.details for calls in self.goes for call in calls]


@pytest.fixture
def recorder() -> CallRecorder:
    return CallRecorder(delay_s=0)


@pytest.fixture
def consumer(recorder: CallRecorder) -> Consumer:
    consumer = Consumer()
    recorder.add(consumer)
    return consumer


def test_records_a_call(recorder: CallRecorder, consumer: Consumer) -> None:
    """With times, method, peer, status and context."""
    call = FakeCall(context=call_context(model="digits"))
    recorder.started(call)
    recorder.finished(call, grpc.StatusCode.NOT_FOUND, "no such model")
    assert recorder.flush()
    peer = b"ipv4:127.0.0.1:40000"
    assert consumer.goes == [
        [FinishedCall(100.5, 100.0, INFER, peer, grpc.StatusCode.NOT_FOUND, "no such model", call.context, None)]
    ]


def test_delivers_pending_calls_at_once(recorder: CallRecorder, consumer: Consumer) -> None:
    """In the order in which they ended, each once."""
    for number in range(100):
        recorder.finished(FakeCall(), OK, str(number))
    assert recorder.flush()
    assert not recorder.flush()
    assert consumer.details == [str(number) for number in range(100)]
    assert len(consumer.goes) == 1


def test_burst_from_many_threads(recorder: CallRecorder, consumer: Consumer) -> None:
    """Concurrent with the thread and with scrapes; stop delivers the rest."""
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


def test_delivers_calls_at_exit() -> None:
    """Without a call of stop, during the delay."""
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


def test_failing_consumer_does_not_affect_others(recorder: CallRecorder, caplog: pytest.LogCaptureFixture) -> None:
    """Its exception is logged."""

    def fail(_calls: Sequence[FinishedCall]) -> None:
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


def test_pending_calls_are_bounded(recorder: CallRecorder, consumer: Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the thread is starved, the thread that ends a call delivers them."""
    monkeypatch.setattr(module, "_MAX_PENDING", 10)
    for number in range(25):
        recorder.finished(FakeCall(), OK, str(number))
    assert [len(calls) for calls in consumer.goes] == [11, 11]


def test_listens_to_stream_results_if_set(recorder: CallRecorder) -> None:
    """For streams that start from then on; other calls have no annotation."""

    def listen(_call: Call, _result: StreamResult) -> None:
        pass

    before, after = FakeCall(), FakeCall()
    recorder.started(before)
    recorder.result_listener = listen
    recorder.started(after)
    assert before.annotations == {}
    assert result_listeners(after) == (listen,)

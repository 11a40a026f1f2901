"""The engine with its own thread: cancels, stop, the start of the thread, and failures in it."""

import random
import threading

import pytest

from inferd.errors import ModelUnavailableError
from inferd.generation.engine import GenerationEngine
from tests.generating import FakeDecoder, OwnPollThread, a_request, alone, failing, started_engine
from tests.patience import PATIENCE_S

_CANCELS = 10_000


def _held(engine: GenerationEngine) -> tuple[int, int, int, int]:
    return engine.running, engine.waiting, engine.unanswered_requests, engine.cache_bytes_in_use


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "generate-m"]


def test_ten_thousand_cancels_leave_nothing():
    """Cancels at random moments free queue, cache and thread; other requests get the tokens that they get alone."""
    chance, poll_thread, decoder = random.Random(3), OwnPollThread(), FakeDecoder(slots=8)
    engine = started_engine(decoder, poll_thread)
    kept, open_requests, cancelled = [], [], 0
    while cancelled < _CANCELS:
        request = a_request(chance.randrange(1, 30), chance.randrange(1, 8))
        engine.submit(request)
        if chance.random() < 0.01:
            kept.append(request)
        else:
            open_requests.append(request)
        if len(open_requests) > 30:
            victim = open_requests.pop(chance.randrange(len(open_requests)))
            if not victim.receiver.has_ended:
                victim.receiver.is_cancelled = True
                engine.cancel(victim)
                cancelled += 1
            poll_thread.run_ready()
    poll_thread.run_until(lambda: engine.unanswered_requests == 0)
    assert engine.stop(PATIENCE_S)
    assert _held(engine) == (0, 0, 0, 0)
    assert decoder.held_tokens == 0
    assert not _threads()
    assert all(request.receiver.tokens == alone(request) for request in kept[:20])


def _stopped(engine, poll_thread, timeout_s):
    """Stop ``engine`` in another thread, while this one is the poll thread; return what `stop` returned."""
    results = []

    def stop():
        results.append(engine.stop(timeout_s))
        poll_thread.call_soon(lambda: None)

    thread = threading.Thread(target=stop)
    thread.start()
    poll_thread.run_until(lambda: bool(results))
    thread.join()
    return results[0]


def test_stop_answers_admitted_requests():
    """Running and waiting requests complete; later ones are rejected."""
    poll_thread = OwnPollThread()
    engine = started_engine(FakeDecoder(slots=2), poll_thread)
    requests = [a_request(n + 1, 9) for n in range(8)]
    for request in requests:
        engine.submit(request)
    assert _stopped(engine, poll_thread, PATIENCE_S)
    assert all(request.receiver.tokens == alone(request) for request in requests)
    engine.submit(late := a_request())
    assert isinstance(late.receiver.error, ModelUnavailableError)


def test_stop_fails_requests_that_are_not_answered_in_time():
    """The thread ends after the run in progress."""
    poll_thread, decoder, may_go_on = OwnPollThread(), FakeDecoder(slots=1), threading.Event()
    decoder.during = lambda: may_go_on.wait(PATIENCE_S)
    engine = started_engine(decoder, poll_thread)
    requests = [a_request(), a_request()]
    for request in requests:
        engine.submit(request)
    assert not engine.stop(0.0)
    poll_thread.run_until(lambda: engine.unanswered_requests == 0)
    assert all(isinstance(request.receiver.error, ModelUnavailableError) for request in requests)
    may_go_on.set()
    assert engine.stop(PATIENCE_S)
    assert _held(engine) == (0, 0, 0, 0)


def test_stop_reports_a_hanging_run():
    """It returns False while the run uses the decoder, although no request is open."""
    poll_thread, decoder, may_go_on = OwnPollThread(), FakeDecoder(slots=1), threading.Event()
    decoder.during = lambda: may_go_on.wait(PATIENCE_S)
    engine = started_engine(decoder, poll_thread)
    engine.submit(request := a_request())
    request.receiver.is_cancelled = True
    engine.cancel(request)
    assert not engine.stop(0.0)
    may_go_on.set()
    assert engine.stop(PATIENCE_S)


def test_starts_its_thread_with_the_first_request():
    """A model without requests has no thread."""
    poll_thread = OwnPollThread()
    engine = started_engine(FakeDecoder(), poll_thread)
    assert not _threads()
    engine.submit(request := a_request())
    assert len(_threads()) == 1
    poll_thread.run_until(lambda: request.receiver.has_ended)
    assert engine.stop(PATIENCE_S)


def test_requests_are_refused_while_no_thread_can_start(monkeypatch: pytest.MonkeyPatch):
    """A later request starts the thread."""
    poll_thread = OwnPollThread()
    engine = started_engine(FakeDecoder(), poll_thread)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", lambda _self: (_ for _ in ()).throw(RuntimeError("no")))
        engine.submit(refused := a_request())
    poll_thread.run_ready()
    assert refused.receiver.error is not None
    engine.submit(served := a_request())
    poll_thread.run_until(lambda: served.receiver.has_ended)
    assert served.receiver.is_complete
    assert engine.stop(PATIENCE_S)


def test_thread_survives_a_failing_decoder():
    """The request whose run fails gets an error, and the next one is served."""
    poll_thread, decoder = OwnPollThread(), FakeDecoder()
    engine = started_engine(decoder, poll_thread)
    decoder.fails = failing
    engine.submit(bad := a_request())
    poll_thread.run_until(lambda: bad.receiver.has_ended)
    decoder.fails = lambda run: None
    engine.submit(good := a_request())
    poll_thread.run_until(lambda: good.receiver.has_ended)
    assert good.receiver.is_complete
    assert engine.stop(PATIENCE_S)

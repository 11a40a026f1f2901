"""The chain of interceptors."""

from types import SimpleNamespace

import grpc
import pytest

from inferd.call_context import CallContext
from inferd.rpc.accept import InterceptorChain
from inferd.rpc.call import CallEnd
from inferd.rpc.interfaces import Rejection

REFUSAL = Rejection(grpc.StatusCode.PERMISSION_DENIED, "no", (("a", "b"),))


class Interceptor:
    """Records its calls; rejects or fails as configured."""

    def __init__(self, name, log, *, refusal=None, error=None):
        self.name = name
        self.log = log
        self.refusal = refusal
        self.error = error

    def started(self, call):
        self.log.append(f"{self.name} started")
        if self.error:
            raise self.error
        return self.refusal

    def finished(self, call, code, details):
        self.log.append(f"{self.name} finished {code.name}")
        if self.error:
            raise self.error


def run(*interceptors, code=grpc.StatusCode.OK):
    chain = InterceptorChain(interceptors)
    call = SimpleNamespace(method="/x.Y/Z", context=CallContext(), annotations={}, end=CallEnd(chain.all_finishers))
    refusal = chain.start(call)
    call.end.notify(call, refusal.code if refusal else code, "")
    return refusal


def test_first_interceptor_is_the_outermost():
    """Started in order, finished in reverse."""
    log = []
    assert run(Interceptor("a", log), Interceptor("b", log)) is None
    assert log == ["a started", "b started", "b finished OK", "a finished OK"]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_outer_interceptors_see_the_end_of_a_rejected_call(position):
    """Interceptors that saw the start see the end, the one that rejects included; inner ones see neither."""
    log = []
    chain = [Interceptor(name, log, refusal=REFUSAL if i == position else None) for i, name in enumerate("abc")]
    assert run(*chain) is REFUSAL
    seen = "abc"[: position + 1]
    expected = [f"{name} started" for name in seen] + [f"{name} finished PERMISSION_DENIED" for name in seen[::-1]]
    assert log == expected


class Asking:
    """Uses `on_finished` instead of an own ``finished``."""

    finished = None

    def __init__(self, log, *, refusal=None):
        self.log = log
        self.refusal = refusal

    def started(self, call):
        assert call.end.add_finisher(lambda _call, code, _details: self.log.append(f"asked {code.name}"))
        return self.refusal


@pytest.mark.parametrize("refuser", ["asking", "next", None])
def test_finisher_of_a_call_runs_if_it_is_rejected(refuser):
    """Whichever interceptor rejects, and ahead of the interceptors' own ``finished``."""
    log = []
    asking = Asking(log, refusal=REFUSAL if refuser == "asking" else None)
    run(Interceptor("a", log), asking, Interceptor("b", log, refusal=REFUSAL if refuser == "next" else None))
    code = "PERMISSION_DENIED" if refuser else "OK"
    seen = ["a started"] if refuser == "asking" else ["a started", "b started"]
    told = [f"asked {code}", *(f"{each[0]} finished {code}" for each in seen[::-1])]
    assert log == [*seen, *told]


def test_exception_in_started_rejects_the_call(caplog):
    """It might have rejected the call, so the call must not pass."""
    refusal = run(Interceptor("a", [], error=RuntimeError("secret")))
    assert refusal == Rejection(grpc.StatusCode.INTERNAL, "internal error")
    assert "secret" in caplog.text


def test_exception_in_finished_is_logged(caplog):
    """The others are called all the same."""
    log = []
    broken = Interceptor("b", log)
    broken.finished = lambda *_: 1 / 0
    run(Interceptor("a", log), broken, Interceptor("c", log))
    assert log == ["a started", "b started", "c started", "c finished OK", "a finished OK"]
    assert "failed on /x.Y/Z" in caplog.text

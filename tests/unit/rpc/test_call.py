"""Behaviour shared by both kinds of call."""

import grpc
import pytest

from inferd.rpc.call import CoreUnaryCall
from inferd.rpc.call_ends import MEMORY_BUDGET
from inferd.rpc.stream_call import CoreStreamCall
from tests.unit.rpc.fakes import Bench, receive_one

INTERNAL = grpc.StatusCode.INTERNAL


@pytest.mark.parametrize("kind", [CoreUnaryCall, CoreStreamCall])
@pytest.mark.parametrize("end", ["answer", "refusal", "cancel"])
def test_on_finished_runs_once_before_the_interceptors(kind, end):
    """And before the status is sent; at once for a call that has ended."""
    bench = Bench(kind)
    heard = []
    if end != "refusal":
        receive_one(bench.call)
        bench.core.complete("ReceiveMessage", message=b"request")
    before = len(bench.core.started)
    bench.call.on_finished(
        lambda call, code, details: heard.append((code, details, list(bench.recorder.ends), len(bench.core.started)))
    )
    if end == "cancel":
        bench.core.complete("ReceiveCloseOnServer")
    elif end == "answer":
        bench.call.reply(b"answer") if kind is CoreUnaryCall else bench.call.finish()
    else:
        bench.call.abort(INTERNAL, "no")
    assert [(code, details) for code, details, *_ in heard] == bench.recorder.ends
    assert [others for *_, others in heard] == [before]
    assert [told for *_, told, _ in heard] == [[]]
    late = []
    bench.call.on_finished(lambda *end: late.append(end))
    assert late == [(bench.call, grpc.StatusCode.CANCELLED, "the call had ended")]
    bench.call.abort(INTERNAL, "again")
    assert (len(heard), len(late)) == (1, 1)


@pytest.mark.parametrize("kind", [CoreUnaryCall, CoreStreamCall])
def test_memory_check_may_reject_the_call_that_starts_it(kind):
    """The first call after a pause starts the memory checks, which may end it."""

    def reject_all(live):
        live.on_call = lambda: [live.reject(call, MEMORY_BUDGET) for call in list(live.calls)]

    bench = Bench(kind, on_live=reject_all)
    assert bench.codes == ["RESOURCE_EXHAUSTED"]
    bench.core.complete_all()
    assert bench.live.count == 0

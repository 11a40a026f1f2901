"""Results of a stream, matched to requests and ordered."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.client import Internal, InvalidInput
from inferd.client.messages import RequestWriter
from inferd.client.stream import StreamLedger
from tests.unit.client.fake_service import echoed

_WRITER = RequestWriter("m", "", (), 0, None)
_parsed = pb.InferRequest.FromString


def _ledger(count: int, *, ordered: bool):
    ledger = StreamLedger(_WRITER, ordered=ordered)
    return ledger, [echoed(_parsed(ledger.open({"x": np.int64(n)}))) for n in range(count)]


@given(st.permutations(range(6)))
def test_ordered_results(arrival):
    """Results in any order are yielded by index, each as soon as possible."""
    ledger, results = _ledger(6, ordered=True)
    arrived: set[int] = set()
    handed: list[int] = []
    for index in arrival:
        arrived.add(index)
        handed += [item.index for item in ledger.settle(results[index])]
        assert handed == list(range(len(handed)))
        assert len(handed) not in arrived
    assert len(handed) == 6
    ledger.finish()


@given(st.permutations(range(6)))
def test_unordered_results(arrival):
    """Each result is yielded at once, with the index of its request."""
    ledger, results = _ledger(6, ordered=False)
    for index in arrival:
        (item,) = ledger.settle(results[index])
        assert (item.index, item.request_id, item.result()["x"]) == (index, str(index), index)


def test_keeps_own_request_ids():
    """In the message and in the item."""
    ledger = StreamLedger(_WRITER, ordered=False)
    request = _parsed(ledger.open(("frame-7", {"x": 1})))
    assert request.request_id == "frame-7"
    (item,) = ledger.settle(echoed(request))
    assert (item.index, item.request_id) == (0, "frame-7")


def test_ids_may_be_reused_after_answer():
    """Two open requests with one id cannot be distinguished."""
    ledger = StreamLedger(_WRITER, ordered=False)
    first = _parsed(ledger.open(("a", {"x": 1})))
    with pytest.raises(InvalidInput, match='request_id "a"'):
        ledger.open(("a", {"x": 2}))
    list(ledger.settle(echoed(first)))
    second = _parsed(ledger.open(("a", {"x": 2})))
    assert [item.index for item in ledger.settle(echoed(second))] == [1]


def test_unsent_requests_are_not_awaited():
    """If their inputs are invalid."""
    ledger = StreamLedger(_WRITER, ordered=False)
    with pytest.raises(InvalidInput):
        ledger.open({"x": np.array([1j])})
    ledger.finish()


def test_reports_unexpected_results():
    """Unknown and duplicate results are errors."""
    ledger, (result,) = _ledger(1, ordered=False)
    list(ledger.settle(result))
    with pytest.raises(Internal, match='request_id "0", which is not in flight'):
        list(ledger.settle(result))


def test_reports_missing_results():
    """A stream that ends with OK must have answered every request."""
    ledger, results = _ledger(3, ordered=False)
    list(ledger.settle(results[1]))
    with pytest.raises(Internal, match="2 requests unanswered"):
        ledger.finish()

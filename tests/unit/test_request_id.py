"""The ids that calls go by."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd import request_id
from tests.unit.call_facts import facts


def _call(named=None, **annotations):
    return SimpleNamespace(facts=facts(request_id=named), annotations=annotations)


def test_one_is_made_once_for_a_call():
    """And another one for the next."""
    first, second = facts(), facts()
    assert request_id.of(first) == request_id.of(first) == first.request_id
    assert request_id.of(first) != request_id.of(second)


def test_the_message_names_a_call_that_its_metadata_has_not():
    """Otherwise the call has both names."""
    unnamed, named = _call(), _call("sent")
    request_id.name_by_message(unnamed, "mine")
    request_id.name_by_message(named, "mine")
    assert (unnamed.facts.request_id, unnamed.annotations) == ("mine", {})
    assert (named.facts.request_id, named.annotations) == ("sent", {"own_id": "mine"})


@pytest.mark.parametrize(
    ("given", "taken"),
    [("a-1/b c", "a-1/b c"), ("x" * 129, "x" * 128), ("a\nb\x00", "a?b?"), ("größe", "gr??e"), ("\x1b[31m", "?[31m")],
)
def test_what_a_caller_may_choose(given, taken):
    """Printable ASCII, and not much of it."""
    assert request_id.cleaned(given) == taken


@given(st.text(max_size=300))
def test_whatever_it_is_it_does_no_harm(given):
    """In a log line or in metadata."""
    taken = request_id.cleaned(given)
    assert len(taken) <= 128
    assert all(" " <= letter <= "~" for letter in taken)
    assert request_id.cleaned(taken) == taken


def test_fields_for_other_lines():
    """Those about the call, while it is handled."""
    assert request_id.log_fields(_call("r", requests=2)) == {"request_id": "r"}
    traced = request_id.log_fields(_call("r", trace_id="t", span_id="s"))
    assert traced == {"request_id": "r", "trace_id": "t", "span_id": "s"}
    unnamed = _call()
    assert request_id.log_fields(unnamed) == {"request_id": unnamed.facts.request_id} != {"request_id": None}

"""Ids of calls."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.call_context import log_fields, request_id_of, sanitized_id, set_message_id
from tests.unit.call_context import call_context


def _call(named=None, **annotations):
    return SimpleNamespace(context=call_context(request_id=named), annotations=annotations)


def test_generates_one_id_per_call():
    """The same one each time, and another one for another call."""
    first, second = call_context(), call_context()
    assert request_id_of(first) == request_id_of(first) == first.request_id
    assert request_id_of(first) != request_id_of(second)


def test_message_id_applies_without_metadata_id():
    """Otherwise the call has both."""
    unnamed, named = _call(), _call("sent")
    set_message_id(unnamed, "mine")
    set_message_id(named, "mine")
    assert (unnamed.context.request_id, unnamed.annotations) == ("mine", {})
    assert (named.context.request_id, named.annotations) == ("sent", {"own_id": "mine"})


@pytest.mark.parametrize(
    ("given", "taken"),
    [("a-1/b c", "a-1/b c"), ("x" * 129, "x" * 128), ("a\nb\x00", "a?b?"), ("größe", "gr??e"), ("\x1b[31m", "?[31m")],
)
def test_sanitizes_ids(given, taken):
    """Printable ASCII of bounded length."""
    assert sanitized_id(given) == taken


@given(st.text(max_size=300))
def test_sanitized_ids_are_safe(given):
    """In log lines and in metadata."""
    taken = sanitized_id(given)
    assert len(taken) <= 128
    assert all(" " <= letter <= "~" for letter in taken)
    assert sanitized_id(taken) == taken


def test_log_fields_link_lines_to_call():
    """Log lines about a call while it is handled."""
    assert log_fields(_call("r", requests=2)) == {"request_id": "r"}
    traced = log_fields(_call("r", trace_id="t", span_id="s"))
    assert traced == {"request_id": "r", "trace_id": "t", "span_id": "s"}
    unnamed = _call()
    assert log_fields(unnamed) == {"request_id": unnamed.context.request_id} != {"request_id": None}

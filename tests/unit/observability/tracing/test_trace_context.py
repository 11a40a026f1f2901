"""W3C Trace Context of callers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.observability.tracing.interceptor import Parent, join_tracestate, parse_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("value", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", True),
    ],
)
def test_parses_traceparent(value, sampled):
    """Later versions as far as this one defines them."""
    assert parse_traceparent(value) == Parent(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "value",
    [
        "",
        b"bytes",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
    ],
)
def test_ignores_invalid_traceparent(value):
    """As the specification requires."""
    assert parse_traceparent(value) is None


@given(st.text(max_size=80))
def test_never_raises(value):
    """Callers choose the text."""
    parse_traceparent(value)


def test_passes_tracestate_on():
    """Unless it is too long."""
    assert join_tracestate("", "rojo=00f067aa0ba902b7") == "rojo=00f067aa0ba902b7"
    assert join_tracestate("", "a=" + "x" * 511) == ""
    assert join_tracestate("", b"a=b") == ""


def test_joins_tracestates():
    """One that makes the result too long is left out."""
    assert join_tracestate("a=1", "b=2,c=3") == "a=1,b=2,c=3"
    assert join_tracestate("a=1", "b=" + "x" * 507) == "a=1"
    assert join_tracestate("a=1", b"b=2") == "a=1"

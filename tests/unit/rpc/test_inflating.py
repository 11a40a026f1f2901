"""Compressed messages."""

import gzip
import threading

import pytest

from inferd.rpc.inflating import InflateError, Inflater
from tests.patience import PATIENCE_S

LIMIT = 1_000_000
TIMEOUT_S = PATIENCE_S


@pytest.fixture
def inflate():
    """Inflate a message; return the outcome and the thread that delivered it."""
    soon = []
    done = threading.Event()

    def call_soon(callback):
        soon.append(callback)
        done.set()

    inflater = Inflater(LIMIT, call_soon)
    outcomes = []

    def run(message):
        inflater.inflate(message, outcomes.append)
        if not outcomes:
            assert done.wait(TIMEOUT_S)
            soon.pop()()
        (outcome,) = outcomes
        return outcome

    yield run
    assert inflater.stop(TIMEOUT_S)


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 300_000, LIMIT])
def test_inflates_what_was_compressed(inflate, size):
    """Up to the limit, small and large."""
    content = bytes(range(251)) * (size // 251 + 1)
    # Stored without compression, so the ratio is an ordinary one.
    message = gzip.compress(content[:size], 0)
    assert inflate(message) == content[:size]


def test_rejects_message_above_the_limit(inflate):
    """Inflating stops there."""
    outcome = inflate(gzip.compress(bytes(range(256)) * 4000, 0))
    assert isinstance(outcome, InflateError)
    assert str(outcome) == f"a message that inflates to at most {LIMIT} bytes"


@pytest.mark.parametrize("size", [200_000, LIMIT, 10 * LIMIT])
def test_rejects_message_above_the_ratio(inflate, size):
    """A hundred times its size, unless that is small."""
    message = gzip.compress(bytes(size))
    outcome = inflate(message)
    assert isinstance(outcome, InflateError)
    assert str(outcome) == f"a message that inflates to at most {max(100 * len(message), 65536)} bytes"


def test_small_message_has_no_maximum_ratio(inflate):
    """Inflating it is cheap."""
    assert inflate(gzip.compress(bytes(60_000))) == bytes(60_000)


@pytest.mark.parametrize("size", [100, 300_000])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: m[:-9],
        lambda m: m[:20],
        lambda m: m[:2],
        lambda m: m + b"more",
        lambda m: m + m,
        lambda m: m[:-8] + bytes(8),
    ],
    ids=["cut at the end", "cut", "two bytes", "with more behind it", "twice", "another checksum"],
)
def test_rejects_all_but_one_whole_member(inflate, size, spoil):
    """Truncated, corrupt, followed by other data."""
    assert isinstance(inflate(spoil(gzip.compress(bytes(range(250)) * (size // 250 + 1), 0))), InflateError)

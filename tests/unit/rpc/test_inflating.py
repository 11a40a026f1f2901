"""Compressed messages."""

import gzip
import threading
import zlib

import pytest

from inferd._generated.inferd.v1 import generation_pb2, inference_pb2
from inferd._generated.inference import grpc_service_pb2
from inferd.rpc.inflating import ALGORITHMS, InflateError, Inflater
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
        inflater.inflate(message, outcomes.append, ALGORITHMS[message[:2]])
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


@pytest.mark.parametrize("level", range(10))
@pytest.mark.parametrize("window", [16 + zlib.MAX_WBITS, zlib.MAX_WBITS], ids=["gzip", "deflate"])
def test_inflates_each_level_of_each_algorithm(inflate, window, level):
    """By the first two bytes, which differ by level."""
    content = bytes(range(251))
    assert inflate(zlib.compress(content, level, window)) == content


@pytest.mark.parametrize("file", [grpc_service_pb2, generation_pb2, inference_pb2], ids=lambda file: file.__name__)
def test_no_request_begins_like_a_compressed_message(file):
    """The first byte of what deflate makes is the tag of a field 15 with a number."""
    tag = 15 << 3
    assert all(begin[0] in (0x1F, tag) for begin in ALGORITHMS)
    for service in file.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            assert 15 not in method.input_type.fields_by_number, method.full_name


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

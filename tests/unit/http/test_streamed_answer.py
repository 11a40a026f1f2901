"""What is on its way from the poll thread to a connection."""

import pytest

from inferd.http.streaming import StreamedAnswer


def test_connection_is_woken_once_for_all_that_is_due() -> None:
    answer = StreamedAnswer((), bytes)
    assert [answer.put(b"a"), answer.put(b"b"), answer.end(b"c")] == [True, False, False]
    assert answer.take() == (b"abc", True, None)
    assert not answer.put(b"d"), "nothing comes after the end"
    assert not answer.end(b"e")
    assert answer.take() == (b"", True, None)
    assert (answer.sent_parts, answer.sent_bytes) == (3, 3)


def test_end_wakes_the_connection() -> None:
    answer = StreamedAnswer((), bytes)
    assert answer.put(b"a")
    answer.take()
    assert answer.end(b"")


def test_sender_hears_once_when_its_parts_are_taken() -> None:
    """Not if nothing waits, nor once the answer has ended."""
    answer = StreamedAnswer((), bytes)

    def taken() -> None:
        raise AssertionError("only returned")

    assert not answer.on_next_take(taken)
    answer.put(bytes(20_000))
    assert answer.is_backed_up
    assert answer.on_next_take(taken)
    assert answer.take()[2] is taken
    assert not answer.is_backed_up
    answer.put(b"a")
    assert answer.take()[2] is None
    answer.put(b"a")
    assert answer.on_next_take(taken)
    answer.end(b"b")
    assert answer.take()[2] is None


def test_illegal_headers() -> None:
    with pytest.raises(ValueError, match="one line"):
        StreamedAnswer((("X", "a\r\nb"),), bytes)

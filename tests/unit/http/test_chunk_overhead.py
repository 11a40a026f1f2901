"""What a body in chunks may take beside its content, as the connection counts it."""

from types import SimpleNamespace

import pytest

from inferd.http.connections import Connection

KIB = 1024


class Body:
    """A body of which ``total_bytes`` have been parsed."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.error: Exception | None = None

    def is_eof(self) -> bool:
        return False

    def set_exception(self, error: Exception) -> None:
        self.error = error


@pytest.mark.parametrize(
    ("received", "parsed", "is_refused"),
    [
        # The largest read at once, which is counted before it is parsed.
        (70 * KIB, 64 * KIB, False),
        (0, 0, False),
        # Chunks of one byte, whose encoding is five times as large.
        (600 * KIB, 120 * KIB, True),
        # An extension without end.
        (300 * KIB, 1, True),
    ],
)
def test_overhead_of_chunks_is_bounded(received: int, parsed: int, *, is_refused: bool) -> None:
    """However much comes at once: what has not been parsed yet is no overhead."""
    body, connection = Body(parsed), SimpleNamespace(_incoming=SimpleNamespace(received=received, before=0))
    Connection._fail_tiny_chunks(connection, body)  # type: ignore[arg-type]  # what it uses of itself
    assert (body.error is not None) is is_refused

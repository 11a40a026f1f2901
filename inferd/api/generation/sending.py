"""Send what is generated over a stream, in fewer messages while its caller does not read."""

from collections.abc import Callable
from typing import Protocol

from inferd.generation.request import Delta
from inferd.rpc import StreamCall

#: Messages that wait for the caller to read before deltas are joined.
_MAX_WAITING_MESSAGES = 8
#: Tokens that are joined at most. As messages they take a fifth of the memory, and 20 log probabilities each leave one
#: far below the 4 MiB that clients accept.
MAX_JOINED_TOKENS = 256


class Encoder(Protocol):
    """Makes the messages of one generation."""

    def encode(self, delta: Delta) -> bytes:
        """Return the message with the next tokens."""
        ...


class DeltaSender:
    """Sends the deltas of the generations of one stream, those of each in order; on the poll thread.

    While messages wait because the caller does not read, the deltas of each generation are joined, so that a caller
    that never reads costs no more than its answers.
    """

    def __init__(self, call: StreamCall, send: Callable[[bytes], object]) -> None:
        self._call = call
        self._send = send
        self._kept: dict[Encoder, Delta] = {}
        call.on_sent = self._send_kept

    def send(self, encoder: Encoder, delta: Delta) -> None:
        """Send ``delta``, now or together with later ones; the last one of a generation now."""
        delta = self.take(encoder, delta)
        if delta.finish_reason is not None or self._has_room or len(delta.token_ids) >= MAX_JOINED_TOKENS:
            self._send(encoder.encode(delta))
        else:
            self._kept[encoder] = delta

    def flush(self, encoder: Encoder) -> None:
        """Send what is kept of a generation that ends without a last delta."""
        kept = self._kept.pop(encoder, None)
        if kept is not None:
            self._send(encoder.encode(kept))

    def take(self, encoder: Encoder, delta: Delta) -> Delta:
        """Return ``delta`` together with what is kept of its generation, which is not kept any more."""
        kept = self._kept.pop(encoder, None)
        if kept is None:
            return delta
        join(kept, delta)
        return kept

    @property
    def _has_room(self) -> bool:
        return self._call.waiting_messages < _MAX_WAITING_MESSAGES

    def _send_kept(self) -> None:
        while self._kept and self._has_room:
            encoder = next(iter(self._kept))
            self._send(encoder.encode(self._kept.pop(encoder)))


def join(delta: Delta, later: Delta) -> None:
    """Add to ``delta`` what was generated after it."""
    delta.token_ids.extend(later.token_ids)
    delta.text += later.text
    delta.logprobs.extend(later.logprobs)
    delta.finish_reason = later.finish_reason
    delta.usage = later.usage

"""Send deltas over a stream, in fewer messages while its caller does not read."""

from collections.abc import Callable
from typing import Protocol

from inferd.generation.request import Delta
from inferd.rpc import StreamCall

#: Unread messages from which on deltas are joined.
_MAX_WAITING_MESSAGES = 8
#: The most tokens of joined deltas; more are sent as a message, which takes a fifth of the memory. With 20 log
#: probabilities for each token, a message is far below the 4 MiB that clients accept.
MAX_JOINED_TOKENS = 256


class Encoder(Protocol):
    """Encodes the deltas of one generation."""

    def encode(self, delta: Delta) -> bytes:
        """Return the message with ``delta``."""
        ...


class DeltaSender:
    """Sends the deltas of all generations of one stream, those of each in order; on the poll thread.

    While the caller does not read, the deltas of each generation are joined, so that a caller that never reads takes no
    more memory than its answers.
    """

    def __init__(self, call: StreamCall, send: Callable[[bytes], object]) -> None:
        self._call = call
        self._send = send
        self._joined: dict[Encoder, Delta] = {}
        call.on_sent = self._send_joined

    def send(self, encoder: Encoder, delta: Delta) -> None:
        """Send ``delta``, now or joined with later ones; the last one of a generation now."""
        delta = self.take(encoder, delta)
        if delta.finish_reason is not None or self._has_room or len(delta.token_ids) >= MAX_JOINED_TOKENS:
            self._send(encoder.encode(delta))
        else:
            self._joined[encoder] = delta

    def flush(self, encoder: Encoder) -> None:
        """Send the joined delta of a generation that ends without a last delta."""
        joined = self._joined.pop(encoder, None)
        if joined is not None:
            self._send(encoder.encode(joined))

    def take(self, encoder: Encoder, delta: Delta) -> Delta:
        """Remove the joined delta of the generation, and return it together with ``delta``."""
        joined = self._joined.pop(encoder, None)
        if joined is None:
            return delta
        append_delta(joined, delta)
        return joined

    @property
    def _has_room(self) -> bool:
        return self._call.waiting_messages < _MAX_WAITING_MESSAGES

    def _send_joined(self) -> None:
        while self._joined and self._has_room:
            encoder = next(iter(self._joined))
            self._send(encoder.encode(self._joined.pop(encoder)))


def append_delta(delta: Delta, later: Delta) -> None:
    """Append the output of ``later`` to ``delta``."""
    delta.token_ids.extend(later.token_ids)
    delta.text += later.text
    delta.logprobs.extend(later.logprobs)
    delta.finish_reason = later.finish_reason
    delta.usage = later.usage

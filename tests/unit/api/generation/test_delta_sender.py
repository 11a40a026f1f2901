"""A caller that does not read gets its tokens in fewer messages, and none is lost."""

import json

from inferd.api.generation.delta_sender import MAX_JOINED_TOKENS, DeltaSender
from inferd.generation.request import Delta, FinishReason
from tests.unit.api.generation.fakes import StreamingCall


class Tokens:
    """Writes the tokens of a message."""

    def encode(self, delta: Delta) -> bytes:
        return json.dumps(delta.token_ids).encode()


def _sender() -> tuple[StreamingCall, DeltaSender]:
    call = StreamingCall()
    return call, DeltaSender(call, call.send)


def _messages(call: StreamingCall) -> list[list[int]]:
    return [json.loads(message) for message in call.sent]


def test_sends_each_delta_to_a_reader() -> None:
    """While the caller reads, each delta is a message of its own."""
    call, sender = _sender()
    one = Tokens()
    for number in range(20):
        sender.send(one, Delta(token_ids=[number]))
    assert _messages(call) == [[number] for number in range(20)]


def test_joins_deltas_while_the_caller_does_not_read() -> None:
    """When it reads again, it gets all tokens in order, in fewer messages."""
    call, sender = _sender()
    call.reads_answers = False
    one, other = Tokens(), Tokens()
    for number in range(20):
        sender.send(one, Delta(token_ids=[number]))
        sender.send(other, Delta(token_ids=[-number]))
    assert len(call.unread) == 8
    call.catch_up()
    assert len(call.sent) == 10
    tokens = [token for message in _messages(call) for token in message]
    assert [token for token in tokens if token > 0] == list(range(1, 20))
    assert [-token for token in tokens if token < 0] == list(range(1, 20))


def test_last_delta_is_sent_with_the_joined_ones() -> None:
    """It is sent at once, although the caller does not read."""
    call, sender = _sender()
    call.reads_answers = False
    one = Tokens()
    for number in range(10):
        sender.send(one, Delta(token_ids=[number]))
    sender.send(one, Delta(token_ids=[10], finish_reason=FinishReason.STOP))
    call.catch_up()
    assert _messages(call)[8:] == [[8, 9, 10]]


def test_bounds_the_joined_tokens_of_each_generation() -> None:
    """Beyond the bound, a message is sent, so that log probabilities neither stay objects nor make a huge message."""
    call, sender = _sender()
    call.reads_answers = False
    one = Tokens()
    for number in range(8 + 2 * MAX_JOINED_TOKENS):
        sender.send(one, Delta(token_ids=[number]))
    assert [len(json.loads(message)) for message in call.unread] == [1] * 8 + [MAX_JOINED_TOKENS] * 2


def test_flush_sends_joined_deltas() -> None:
    """A generation that ends with an error has no last delta."""
    call, sender = _sender()
    call.reads_answers = False
    one = Tokens()
    for number in range(9):
        sender.send(one, Delta(token_ids=[number]))
    sender.flush(one)
    sender.flush(one)
    call.catch_up()
    assert _messages(call)[8:] == [[8]]

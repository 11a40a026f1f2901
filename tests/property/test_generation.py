"""What must be true of any requests to a language model, however they come, leave, and meet in its runs."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.batching.queued import Principal
from inferd.errors import DeadlineExceededError
from inferd.generation.request import GenerationRequest, Sampling
from tests.generating import FakeDecoder, Generation, a_request, alone, sampled

#: Slots and context of the decoder, and tokens of its cache: fewer than all slots have together.
_SLOTS, _CONTEXT, _CACHE_TOKENS = 4, 64, 100
_CHUNK = 8
_RUN_S = 0.01


@dataclass
class _Ask:
    prompt: list[int]
    max_tokens: int
    priority: int
    seed: int | None
    ends: bool
    principal: str
    timeout_s: float | None

    def request(self, now: float) -> GenerationRequest:
        return a_request(
            self.prompt,
            self.max_tokens,
            ends=self.ends,
            priority=self.priority,
            principal=Principal(self.principal),
            sampling=Sampling() if self.seed is None else sampled(self.seed, repetition_penalty=1.2),
            received_at=now,
            **({} if self.timeout_s is None else {"deadline": now + self.timeout_s}),
        )


@dataclass
class _Cancel:
    which: int


@dataclass
class _Turns:
    count: int


_asks = st.builds(
    _Ask,
    prompt=st.lists(st.integers(2, 31), min_size=1, max_size=30),
    max_tokens=st.integers(1, 20),
    priority=st.integers(1, 4),
    seed=st.none() | st.integers(0, 5),
    ends=st.booleans(),
    principal=st.sampled_from(["a", "b"]),
    timeout_s=st.none() | st.floats(0.005, 1.0),
)
_actions = st.lists(
    _asks | st.builds(_Cancel, st.integers(0, 20)) | st.builds(_Turns, st.integers(1, 6)), min_size=1, max_size=30
)


@dataclass
class _History:
    """Requests in order, and what has been done about them."""

    generation: Generation
    requests: list[GenerationRequest] = field(default_factory=list)

    def do(self, action: _Ask | _Cancel | _Turns) -> None:
        match action:
            case _Ask():
                self.requests.append(action.request(self.generation.clock()))
                self.generation.submit(self.requests[-1])
            case _Cancel(which) if which < len(self.requests) and not self.requests[which].receiver.has_ended:
                self.generation.cancel(self.requests[which])
            case _Turns(count):
                self.generation.run(count)
                self.generation.poll_thread.fire_due()


def _play(actions, **fields) -> list[GenerationRequest]:
    decoder = FakeDecoder(slots=_SLOTS, context=_CONTEXT, token_bytes=1024 * 1024 // _CACHE_TOKENS, run_s=_RUN_S)
    generation = Generation(decoder, cache_bytes=1024 * 1024, prefill_chunk_tokens=_CHUNK, **fields)
    history = _History(generation)
    for action in actions:
        history.do(action)
    generation.finish()
    assert generation.engine.unanswered_requests == generation.engine.running == generation.engine.waiting == 0
    assert generation.engine.cache_bytes_in_use == decoder.held_tokens == 0
    assert not any(request.receiver.calls_after_end for request in history.requests)
    return history.requests


@settings(max_examples=60, deadline=None)
@given(_actions)
def test_each_request_gets_the_tokens_that_it_gets_alone(actions):
    """Complete requests get all of them, others the first ones; each request ends once."""
    for request in _play(actions):
        receiver, expected = request.receiver, alone(request)
        assert receiver.has_ended
        if receiver.is_complete:
            assert receiver.tokens == expected
        else:
            assert receiver.tokens == expected[: len(receiver.tokens)]
        if receiver.error is not None:
            assert isinstance(receiver.error, DeadlineExceededError) or not receiver.tokens


@settings(max_examples=30, deadline=None)
@given(_actions)
def test_completes_all_admitted_requests(actions):
    """Without deadlines, no started request fails or waits for memory."""
    for ask in actions:
        if isinstance(ask, _Ask):
            ask.timeout_s = None
    for request in _play(actions):
        assert request.receiver.is_complete != request.receiver.is_cancelled


@settings(max_examples=30, deadline=None)
@given(_actions, st.sampled_from(["block", "shed_oldest", "reject"]), st.integers(1, 3))
def test_full_queues_lose_no_requests(actions, policy, most):
    """Under each policy, each request ends once: complete, cancelled, rejected or expired."""
    for request in _play(actions, queue={"policy": policy, "max_blocked": 2}, max_waiting_requests=most):
        assert request.receiver.has_ended


@settings(max_examples=30, deadline=None)
@given(_actions)
def test_runs_never_mix_and_chunks_are_cut_by_the_prompt_alone(actions):
    """A run is a step of one token each, in slots from 0, or one chunk that begins at a multiple of the chunk size."""
    decoder = FakeDecoder(slots=_SLOTS, context=_CONTEXT)
    history = _History(Generation(decoder, prefill_chunk_tokens=_CHUNK))
    for action in actions:
        history.do(action)
    history.generation.finish()
    for run in decoder.runs:
        if len(run) > 1:
            assert [slot for slot, _, _ in run] == list(range(len(run)))
            assert all(len(tokens) == 1 for _, tokens, _ in run)
        elif len(run[0][1]) > 1:
            assert run[0][2] % _CHUNK == 0
            assert len(run[0][1]) <= _CHUNK

"""Any bytes are a request to a language model, or are rejected with an error."""

import json
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from inferd._generated.inferd.v1 import generation_pb2 as pb
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd.api.generation.generations import Generations
from inferd.api.oip.generation import read
from inferd.api.v1.generation_codec import GenerationCodec
from inferd.api.wire_scanner import MessageLimits, parse
from inferd.errors import InvalidInputError
from tests.unit.api.generation.fakes import CONTEXT, VOCABULARY, Bench, Recorder

LIMITS = MessageLimits()
CODEC = GenerationCodec(LIMITS)

texts = st.text(max_size=4)
numbers = st.floats() | st.integers(-3, 3).map(float)
counts = st.integers(0, 2**32 - 1) | st.integers(0, 70)
ids = st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 300), max_size=70)
prompts = (
    st.builds(pb.Prompt, text=st.text(max_size=70))
    | st.builds(pb.Prompt, token_ids=st.builds(pb.TokenIds, ids=ids))
    | st.builds(
        pb.Prompt,
        chat=st.builds(
            pb.Chat,
            messages=st.lists(st.builds(pb.ChatMessage, role=texts, content=texts), max_size=3),
        ),
    )
    | st.just(pb.Prompt())
)
samplings = st.builds(
    pb.Sampling,
    repetition_penalty=numbers,
    frequency_penalty=numbers,
    presence_penalty=numbers,
    temperature=numbers,
    top_k=counts,
    top_p=numbers,
    min_p=numbers,
    seed=st.integers(0, 2**64 - 1),
)
stops = st.builds(
    pb.StopConditions,
    texts=st.lists(st.text(max_size=3), max_size=3),
    token_ids=ids,
    ignore_end_tokens=st.booleans(),
    min_tokens=counts,
)
requests = st.builds(
    pb.GenerateRequest,
    model=st.just("story"),
    prompt=prompts,
    sampling=st.none() | samplings,
    max_tokens=st.none() | counts,
    stop=st.none() | stops,
    logprobs=st.none() | counts,
    priority=counts,
)


def _submitted(read_params: Any) -> Any:
    """Return the request that reaches the engine, None for one that is rejected with an error."""
    bench, receiver = Bench(), Recorder()
    try:
        Generations(bench.resources).begin(bench.call, read_params(), receiver)
    except InvalidInputError:
        return None
    if receiver.errors:
        assert isinstance(receiver.error, InvalidInputError)
        assert receiver.error.field
        return None
    (request,) = bench.engine.submitted
    return request


@given(message=st.binary(max_size=200), method=st.sampled_from(["generate", "tokenize"]))
def test_any_bytes_are_request_or_error(message: bytes, method: str) -> None:
    """Random bytes raise nothing but InvalidInputError."""
    with suppress(InvalidInputError):
        getattr(CODEC, method)(message)


@settings(max_examples=150)
@given(request=requests)
def test_accepted_requests_are_valid(request: pb.GenerateRequest) -> None:
    """Requests that reach the engine are within its limits; errors name a field."""
    found = _submitted(lambda: CODEC.generate(request.SerializeToString()))
    if found is None:
        return
    assert 1 <= len(found.prompt) < len(found.prompt) + found.max_tokens <= CONTEXT
    assert 0 <= found.prompt.min() <= found.prompt.max() < VOCABULARY
    assert all(0 <= token < VOCABULARY for token in found.stops.token_ids)
    assert found.stops.min_tokens <= found.max_tokens
    sampling = found.sampling
    assert 0 <= sampling.temperature <= 2
    assert 0 < sampling.top_p <= 1
    assert 0 <= sampling.top_k <= VOCABULARY
    assert 0 <= sampling.min_p <= 1
    assert sampling.repetition_penalty > 0
    assert -2 <= sampling.frequency_penalty <= 2 >= sampling.presence_penalty >= -2


values = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.lists(st.integers(), max_size=3)
names = st.sampled_from(
    [
        "temperature",
        "top_k",
        "top_p",
        "seed",
        "stop",
        "stop_token_ids",
        "ignore_eos",
        "logprobs",
        "max_tokens",
        "n",
        "x",
    ]
)


@settings(max_examples=150)
@given(sampling=st.dictionaries(names, values, max_size=3))
def test_any_sampling_parameters_are_request_or_error(sampling: dict[str, Any]) -> None:
    """JSON of Triton's conventions raises nothing but InvalidInputError."""
    request = oip.ModelInferRequest(model_name="story")
    for name, text in (("text_input", "x"), ("sampling_parameters", json.dumps(sampling))):
        tensor = request.inputs.add(name=name, datatype="BYTES", shape=[1])
        tensor.contents.bytes_contents.append(text.encode())
    _submitted(lambda: read(parse(oip.ModelInferRequest, request.SerializeToString()), LIMITS).params)

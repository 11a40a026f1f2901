"""Triton's conventions: what its clients send, and what they get."""

import json
from typing import Any

import numpy as np
import pytest

from inferd.api.generation.params import GenerationParams
from inferd.api.generation.triton import SIGNATURE, TritonOutputs, TritonRequest, read_request
from inferd.errors import InvalidInputError
from inferd.generation.request import Candidate, Delta, FinishReason, TokenLogprobs

BASE = GenerationParams(prompt="", model="story", request_id="7", fields={"model": "model_name"})


def _read(outputs: tuple[str, ...] = (), parameters: dict[str, Any] | None = None, **inputs: Any) -> TritonRequest:
    inputs = {"text_input": b"once", **inputs}
    return read_request(
        BASE, {name: value for name, value in inputs.items() if value is not None}, outputs, parameters or {}
    )


def _sampling(**parameters: Any) -> GenerationParams:
    return _read(sampling_parameters=json.dumps(parameters).encode()).params


def test_reads_the_request_of_the_backends_sample_client() -> None:
    """Numbers in strings, in sampling_parameters and as parameters of the request."""
    sampling = {"temperature": "0.1", "top_p": "0.95", "max_tokens": "100"}
    request = _read(stream=True, sampling_parameters=json.dumps(sampling).encode(), parameters=sampling)
    params = request.params
    assert (params.prompt, params.model, params.request_id) == ("once", "story", "7")
    assert (params.temperature, params.top_p, params.max_tokens) == (0.1, 0.95, 100)
    assert request.streams
    assert request.outputs == {"text_output"}


def test_reads_all_sampling_parameters() -> None:
    """Null counts as absent, and a top_k of -1 keeps all tokens, as in vLLM."""
    params = _sampling(
        top_k=-1,
        min_p=0.5,
        seed=3,
        repetition_penalty=1,
        frequency_penalty=0.5,
        presence_penalty=-0.5,
        min_tokens=2,
        logprobs=5,
        stop="a",
        stop_token_ids=[1, 2],
        ignore_eos=True,
        temperature=None,
    )
    assert (params.top_k, params.min_p, params.seed, params.repetition_penalty) == (0, 0.5, 3, 1)
    assert (params.frequency_penalty, params.presence_penalty, params.min_tokens, params.logprobs) == (0.5, -0.5, 2, 5)
    assert (params.stop_strings, params.stop_token_ids, params.ignore_end_tokens) == (("a",), (1, 2), True)
    assert params.temperature is None
    assert _sampling(stop=["a", "b"], ignore_eos="false").stop_strings == ("a", "b")


def test_reads_parameters_of_the_request_without_sampling_parameters() -> None:
    """Parameters that are not for sampling are ignored."""
    params = _read(parameters={"max_tokens": 5, "temperature": 0.5, "priority": 1, "mine": "x"}).params
    assert (params.max_tokens, params.temperature) == (5, 0.5)
    assert params.field_of("max_tokens") == 'parameters["max_tokens"]'


def test_reads_parameters_in_both_places() -> None:
    """None is ignored: what is in both must be the same."""
    within = json.dumps({"max_tokens": 5, "seed": 2, "top_p": None}).encode()
    params = _read(sampling_parameters=within, parameters={"temperature": 0.5, "seed": "2", "top_p": 0.5}).params
    assert params.top_p == 0.5
    assert (params.max_tokens, params.temperature, params.seed) == (5, 0.5, 2)
    assert params.field_of("max_tokens") == "sampling_parameters.max_tokens"
    assert params.field_of("temperature") == 'parameters["temperature"]'
    with pytest.raises(InvalidInputError) as caught:
        _read(sampling_parameters=within, parameters={"seed": 3})
    assert caught.value.field == 'parameters["seed"]'
    assert caught.value.message == 'parameters["seed"]: expected the same as sampling_parameters.seed, got 3'


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"temperature": "hot"}, 'sampling_parameters.temperature: expected a number, got "hot"'),
        ({"max_tokens": 1.5}, "sampling_parameters.max_tokens: expected an integer of 64 bits, got 1.5"),
        ({"max_tokens": True}, "sampling_parameters.max_tokens: expected an integer of 64 bits, got true"),
        ({"seed": 2.0**64}, "sampling_parameters.seed: expected an integer of 64 bits, got 1.84467440737"),
        ({"seed": "9" * 99}, f'sampling_parameters.seed: expected an integer of 64 bits, got "{"9" * 80}…"'),
        ({"ignore_eos": 1}, "sampling_parameters.ignore_eos: expected a boolean, got 1"),
        ({"stop": [1]}, "sampling_parameters.stop[0]: expected a text, got 1"),
        ({"stop": 1}, "sampling_parameters.stop: expected a text or an array of them, got 1"),
        ({"stop_token_ids": ["1"]}, 'sampling_parameters.stop_token_ids[0]: expected an integer, got "1"'),
        ({"stop_token_ids": {}}, "sampling_parameters.stop_token_ids: expected an array of integers, got an object"),
        ({"n": 2}, "sampling_parameters.n: not supported, got 2"),
        ({"lora_name": "x"}, 'sampling_parameters.lora_name: not supported, got "x"'),
        ({"temprature": 1}, "sampling_parameters.temprature: no such parameter, expected one of temperature, "),
    ],
)
def test_invalid_sampling(parameters: dict[str, Any], message: str) -> None:
    """No parameter is ignored that would change the answer."""
    with pytest.raises(InvalidInputError) as caught:
        _sampling(**parameters)
    assert caught.value.message[: len(message)] == message
    assert caught.value.field == message.partition(":")[0]


def test_parameters_that_change_nothing_are_accepted() -> None:
    """Clients send unsupported parameters with their defaults."""
    assert _sampling(n=1, use_beam_search=False, early_stopping=False, best_of=1, skip_special_tokens=True).seed is None


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"text_input": None}, "expected either text_input or input_ids, got neither"),
        ({"input_ids": np.array([1])}, "expected either text_input or input_ids, got both"),
        ({"text_input": b"\xff"}, "text_input: expected UTF-8 text, got other bytes at 0"),
        ({"sampling_parameters": b"[1]"}, "sampling_parameters: expected a JSON object, got an array"),
        ({"sampling_parameters": b"{"}, "expected a JSON object, got what is not valid JSON: "),
        ({"sampling_parameters": b"{"}, "sampling_parameters: expected a JSON object"),
        (
            {"stream": True, "exclude_input_in_output": False},
            "exclude_input_in_output: expected true with stream, got false",
        ),
        (
            {"text_input": None, "input_ids": np.array([1]), "exclude_input_in_output": False},
            "exclude_input_in_output: expected true with input_ids, got false",
        ),
    ],
)
def test_invalid_inputs(inputs: dict[str, Any], message: str) -> None:
    """The error names the input, as in Triton or as for tensors."""
    with pytest.raises(InvalidInputError, match=message):
        _read(**inputs)


def test_unknown_output_is_refused() -> None:
    """The error lists the outputs of the model."""
    with pytest.raises(InvalidInputError, match='output "x": the model has text_output, output_ids') as caught:
        _read(outputs=("text_output", "x"))
    assert caught.value.field == "outputs[1].name"


def _outputs(request: TritonRequest, *deltas: Delta) -> list[dict[str, Any]]:
    outputs = TritonOutputs(request)
    outputs.prompt_tokens = 4
    return [{name: array.tolist() for name, array in outputs.next_outputs(delta).items()} for delta in deltas]


def _delta(text: str, logprob: float = -0.5, *, ends: bool = False) -> Delta:
    chosen = Candidate(ord(text[0]), text.encode(), logprob)
    logprobs = [TokenLogprobs(chosen=chosen, top=[chosen, Candidate(9, b"\xff", -3.0)])]
    reason = FinishReason.LENGTH if ends else None
    return Delta(token_ids=[ord(text[0])], text=text, logprobs=logprobs, finish_reason=reason)


def test_whole_answers_begin_with_the_prompt() -> None:
    """As in the vLLM backend, unless the prompt is excluded; streamed answers never do."""
    assert _outputs(_read(), _delta("a")) == [{"text_output": [b"oncea"]}]
    assert _outputs(_read(exclude_input_in_output=True), _delta("a")) == [{"text_output": [b"a"]}]
    assert _outputs(_read(stream=True), _delta("a"), _delta("b")) == [{"text_output": [b"a"]}, {"text_output": [b"b"]}]


def test_additional_outputs() -> None:
    """Outputs that an input asks for have the backend's values."""
    request = _read(
        stream=True,
        return_finish_reason=True,
        return_cumulative_logprob=True,
        return_logprobs=True,
        return_num_input_tokens=True,
        return_num_output_tokens=True,
        sampling_parameters=b'{"logprobs": 2}',
    )
    assert request.params.logprobs == 2
    first, last = _outputs(request, _delta("a"), _delta("b", -1.0, ends=True))
    assert first == {
        "text_output": [b"a"],
        "finish_reason": [b"None"],
        "cumulative_logprob": [-0.5],
        "logprobs": first["logprobs"],
        "num_input_tokens": [4],
        "num_output_tokens": [1],
    }
    assert (last["finish_reason"], last["cumulative_logprob"], last["num_output_tokens"]) == ([b"length"], [-1.5], [1])
    assert json.loads(first["logprobs"][0]) == [
        {
            "97": {"logprob": -0.5, "rank": 1, "decoded_token": "a"},
            "9": {"logprob": -3.0, "rank": 2, "decoded_token": "\ufffd"},
        }
    ]


def test_log_probabilities_are_null_unless_sampled_with() -> None:
    """As in vLLM; their sum does not need the parameter."""
    request = _read(return_logprobs=True, return_cumulative_logprob=True)
    assert request.params.logprobs == 0
    (outputs,) = _outputs(request, _delta("a"))
    assert (outputs["logprobs"], outputs["cumulative_logprob"]) == ([b"null"], [-0.5])


def test_tokens_are_answered_with_tokens() -> None:
    """A request with token ids gets token ids, and their text if the model has a tokenizer."""
    request = _read(text_input=None, input_ids=np.array([1, 2]))
    assert request.params.prompt.tolist() == [1, 2]
    assert _outputs(request, _delta("a")) == [{"text_output": [b"a"], "output_ids": [97]}]


def test_outputs_are_the_requested_ones() -> None:
    """By name, together with those that inputs ask for."""
    request = _read(outputs=("output_ids", "finish_reason"), return_num_output_tokens=True)
    assert list(_outputs(request, _delta("a"))[0]) == ["output_ids", "finish_reason", "num_output_tokens"]


def test_outputs_have_the_types_of_the_signature() -> None:
    """The types are those that metadata and configuration show."""
    request = _read(outputs=tuple(spec.name for spec in SIGNATURE.outputs))
    outputs = TritonOutputs(request).next_outputs(_delta("a"))
    assert list(outputs) == [spec.name for spec in SIGNATURE.outputs]
    assert [array.dtype for array in outputs.values()] == [spec.datatype.numpy for spec in SIGNATURE.outputs]
    assert {array.ndim for array in outputs.values()} == {1}

"""Triton's conventions for language models: the inputs and outputs of its vLLM backend, for all its transports.

``input_ids`` and ``output_ids`` are additions, for models without a tokenizer: a caller that gives tokens gets tokens.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson

from inferd.api.generation.params import GenerationParams, Prompt
from inferd.api.generation.sampling_params import ATTRIBUTES, read_sampling
from inferd.api.json_text import kind_of, shown
from inferd.api.tensors import object_array
from inferd.dtypes import BY_NAME
from inferd.errors import InvalidInputError
from inferd.generation.request import Delta, TokenLogprobs
from inferd.plain_text import clipped, listed
from inferd.runtime.signature import Array, ModelSignature, TensorSpec

#: The path of a parameter in the input `sampling_parameters`.
_WITHIN = "sampling_parameters.{}".format
#: The inputs that ask for an output, by the output.
_RETURNS: Mapping[str, str] = {
    "finish_reason": "return_finish_reason",
    "cumulative_logprob": "return_cumulative_logprob",
    "logprobs": "return_logprobs",
    "num_input_tokens": "return_num_input_tokens",
    "num_output_tokens": "return_num_output_tokens",
}


def _spec(name: str, datatype: str, size: int | None, *, optional: bool = False) -> TensorSpec:
    return TensorSpec(name=name, datatype=BY_NAME[datatype], shape=(size,), optional=optional)


#: What a language model takes and gives by these conventions. One of the first two inputs is needed.
SIGNATURE = ModelSignature(
    inputs=(
        _spec("text_input", "BYTES", 1, optional=True),
        _spec("input_ids", "INT64", None, optional=True),
        _spec("stream", "BOOL", 1, optional=True),
        _spec("sampling_parameters", "BYTES", 1, optional=True),
        _spec("exclude_input_in_output", "BOOL", 1, optional=True),
        *(_spec(name, "BOOL", 1, optional=True) for name in _RETURNS.values()),
    ),
    outputs=(
        _spec("text_output", "BYTES", None),
        _spec("output_ids", "INT64", None),
        _spec("finish_reason", "BYTES", None),
        _spec("cumulative_logprob", "FP32", None),
        _spec("logprobs", "BYTES", None),
        _spec("num_input_tokens", "UINT32", 1),
        _spec("num_output_tokens", "UINT32", None),
    ),
    batchable=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TritonRequest:
    """A request by Triton's conventions.

    ``streams``: respond with each delta, else once. ``outputs`` are the names of the outputs to return; without
    ``gives_logprobs`` that of log probabilities is null. ``prefix`` comes before the generated text.
    """

    params: GenerationParams
    streams: bool
    outputs: frozenset[str]
    gives_logprobs: bool
    prefix: str


def read_request(
    base: GenerationParams,
    inputs: Mapping[str, Any],
    outputs: Collection[str],
    parameters: Mapping[str, Any],
    path: Callable[[str], str] = 'parameters["{}"]'.format,
) -> TritonRequest:
    """Read a request from its ``inputs``: single values, and an array for ``input_ids``.

    ``base`` has the parameters of every request, and their names in the protocol. ``outputs`` are the requested names,
    empty for the defaults. Sampling parameters are in ``parameters`` of the request, where each has a ``path``, in the
    input ``sampling_parameters``, or in both. Raises `InvalidInputError`.
    """
    prompt = _prompt(inputs)
    streams = bool(inputs.get("stream", False))
    wants = _outputs(prompt, outputs, {output for output, name in _RETURNS.items() if inputs.get(name, False)})
    attributes, paths = _sampling(inputs, parameters, path)
    gives_logprobs = "logprobs" in attributes and "logprobs" in wants
    if "cumulative_logprob" in wants:
        attributes.setdefault("logprobs", 0)
    paths["prompt"] = "text_input" if isinstance(prompt, str) else "input_ids"
    return TritonRequest(
        params=replace(base, prompt=prompt, fields={**paths, **base.fields}, **attributes),
        streams=streams,
        outputs=wants,
        gives_logprobs=gives_logprobs,
        prefix=_prefix(inputs, prompt, streams=streams),
    )


def _prompt(inputs: Mapping[str, Any]) -> Prompt:
    text, ids = inputs.get("text_input"), inputs.get("input_ids")
    if (text is None) == (ids is None):
        got = "neither" if text is None else "both"
        raise InvalidInputError(f"expected either text_input or input_ids, got {got}", field="inputs")
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            text = f"text_input: expected UTF-8 text, got other bytes at {error.start}"
            raise InvalidInputError(text, field="text_input") from None
    prompt: Prompt = text if ids is None else ids  # type: ignore[assignment]  # one of them is given
    return prompt


def _outputs(prompt: Prompt, asked: Collection[str], returned: set[str]) -> frozenset[str]:
    """Return the names of the outputs to return: the requested ones, or else the defaults."""
    known = {spec.name for spec in SIGNATURE.outputs}
    for position, name in enumerate(asked):
        if name not in known:
            text = f'output "{clipped(name)}": the model has {listed(spec.name for spec in SIGNATURE.outputs)}'
            raise InvalidInputError(text, field=f"outputs[{position}].name")
    usual = {"text_output"} if isinstance(prompt, str) else {"text_output", "output_ids"}
    return frozenset(returned.union(asked or usual))


def _sampling(
    inputs: Mapping[str, Any], parameters: Mapping[str, Any], path: Callable[[str], str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return attributes of `GenerationParams`, and the path that each has in the request."""
    text = inputs.get("sampling_parameters")
    within = {} if text is None else read_sampling(_object(text), _WITHIN)
    # A request may have parameters for other purposes as well.
    beside = read_sampling({name: value for name, value in parameters.items() if name in ATTRIBUTES}, path)
    paths = {}
    for name, ours in ATTRIBUTES.items():
        # Clients that do not know which of them a server reads send both.
        if ours in within and beside.get(ours, within[ours]) != within[ours]:
            text = f"{path(name)}: expected the same as {_WITHIN(name)}, got {shown(parameters[name])}"
            raise InvalidInputError(text, field=path(name))
        paths[ours] = (_WITHIN if ours in within else path)(name)
    return {**beside, **within}, paths


def _object(text: bytes | str) -> Mapping[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        got = f"what is not valid JSON: {error.msg}"
    else:
        if isinstance(value, dict):
            return value
        got = kind_of(value)
    raise InvalidInputError(f"sampling_parameters: expected a JSON object, got {got}", field="sampling_parameters")


def _prefix(inputs: Mapping[str, Any], prompt: Prompt, *, streams: bool) -> str:
    """Return the prefix of the text: as in Triton the prompt, unless it is excluded or the answer is streamed."""
    excludes = inputs.get("exclude_input_in_output")
    if excludes is None:
        excludes = streams or not isinstance(prompt, str)
    if not excludes and (streams or not isinstance(prompt, str)):
        what = "stream" if streams else "input_ids"
        text = f"exclude_input_in_output: expected true with {what}, got false"
        raise InvalidInputError(text, field="exclude_input_in_output")
    return prompt if not excludes and isinstance(prompt, str) else ""


class TritonOutputs:
    """Makes the outputs of the responses to one request."""

    def __init__(self, request: TritonRequest) -> None:
        self._request = request
        self._prefix = request.prefix
        self._cumulative_logprob = 0.0
        #: The number of tokens of the prompt; set before the first response.
        self.prompt_tokens = 0

    def next_outputs(self, delta: Delta) -> dict[str, Array]:
        """Return the outputs of the next response, which has ``delta``, in the order of `SIGNATURE`."""
        prefix, self._prefix = self._prefix, ""
        self._cumulative_logprob += sum(each.chosen.logprob for each in delta.logprobs)
        logprobs = orjson.dumps(list(map(_logprobs, delta.logprobs))) if self._request.gives_logprobs else b"null"
        # While it is unknown, the backend sends the string of Python's None.
        reason = "None" if delta.finish_reason is None else delta.finish_reason.value
        outputs: dict[str, Array] = {
            "text_output": object_array([(prefix + delta.text).encode()]),
            "output_ids": np.array(delta.token_ids, np.int64),
            "finish_reason": object_array([reason.encode()]),
            "cumulative_logprob": np.array([self._cumulative_logprob], np.float32),
            "logprobs": object_array([logprobs]),
            "num_input_tokens": np.array([self.prompt_tokens], np.uint32),
            "num_output_tokens": np.array([len(delta.token_ids)], np.uint32),
        }
        return {name: array for name, array in outputs.items() if name in self._request.outputs}


def _logprobs(logprobs: TokenLogprobs) -> dict[str, dict[str, Any]]:
    """Return the log probabilities at one position by token, in the backend's form; an unknown rank is null."""
    ranks = {candidate.token_id: rank for rank, candidate in enumerate(logprobs.top, 1)}
    return {
        str(candidate.token_id): {
            "logprob": candidate.logprob,
            "rank": ranks.get(candidate.token_id),
            "decoded_token": candidate.text.decode(errors="replace"),
        }
        for candidate in (logprobs.chosen, *logprobs.top)
    }

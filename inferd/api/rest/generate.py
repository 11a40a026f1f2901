"""Triton's generate and generate_stream: inputs and outputs of language models as plain members of JSON objects."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import orjson

from inferd.api.generation.bodies import BodyReader
from inferd.api.generation.generations import Generations
from inferd.api.generation.http_reply import EVENT_HEADERS, AnswerWriter, ChoiceWriter, Json, StreamedReply, WholeReply
from inferd.api.generation.params import GenerationParams
from inferd.api.generation.sampling_params import ATTRIBUTES
from inferd.api.generation.triton import SIGNATURE, TritonOutputs, TritonRequest, read_request
from inferd.api.handler_resources import HandlerResources
from inferd.api.json_messages import json_answer
from inferd.api.json_text import kind_of
from inferd.api.oip.parameters import priority_and_timeout
from inferd.errors import InvalidInputError
from inferd.generation.request import Delta, GenerationRequest, Usage
from inferd.http.messages import HttpBody, HttpHandler, HttpMessage, HttpUnaryCall
from inferd.models.version import ModelVersion
from inferd.plain_text import clipped, listed
from inferd.runtime.signature import Array

_INPUTS = {spec.name: spec.datatype.name for spec in SIGNATURE.inputs}
#: JSON types of the inputs, except for the one that is an array.
_KINDS: Mapping[str, tuple[type, str]] = {"BYTES": (str, "a string"), "BOOL": (bool, "a boolean")}
#: Parameters of the protocol, for admission.
_ADMISSION = ("priority", "timeout")
#: Members that clients of Triton's TensorRT-LLM backend send, always empty.
_ALWAYS_EMPTY = ("bad_words", "stop_words")


class Generate:
    """Makes the handlers of both operations."""

    def __init__(self, resources: HandlerResources, generations: Generations) -> None:
        self._resources = resources
        self._generations = generations
        self._bodies = BodyReader(resources)

    def handler(self, *, streams: bool) -> HttpHandler:
        """Return a handler that answers with events if it ``streams``, else with one object.

        A request that wants no stream gets one event.
        """

        def begin(call: HttpUnaryCall, request: TritonRequest) -> None:
            kind = StreamedReply if request.streams else WholeReply
            kind(call, TritonAnswer(request, in_events=streams), self._resources).begin(
                self._generations, [request.params]
            )

        def handle(call: HttpUnaryCall, message: HttpMessage) -> None:
            self._bodies.read(call, message, partial(_read, message.path, streams), partial(begin, call))

        return handle


def _read(path: Mapping[str, str], streams: bool, content: dict[str, Any]) -> TritonRequest:
    """Read a request, whose inputs and parameters may be members of the body or of its ``parameters``."""
    request_id = content.pop("id", "")
    if not isinstance(request_id, str):
        raise InvalidInputError(f"id: expected a string, got {kind_of(request_id)}", field="id")
    given = _members(content)
    inputs = {name: _input(name, given[name]) for name in _INPUTS if name in given}
    if not streams and inputs.get("stream"):
        raise InvalidInputError("stream: expected false, or the operation generate_stream, got true", field="stream")
    inputs["stream"] = streams and inputs.get("stream", True)
    priority, timeout_s = priority_and_timeout({name: given[name] for name in _ADMISSION if name in given})
    base = GenerationParams(
        prompt="",
        model=path.get("model", ""),
        version=path.get("version", ""),
        request_id=request_id,
        priority=priority,
        timeout_s=timeout_s,
    )
    return read_request(base, inputs, (), given, lambda name: name if name in content else f'parameters["{name}"]')


def _members(content: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs and parameters of a body. Raises `InvalidInputError` for unknown or repeated names."""
    parameters = content.pop("parameters", None)
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        raise InvalidInputError(f"parameters: expected an object, got {kind_of(parameters)}", field="parameters")
    given: dict[str, Any] = {}
    for name, value in (*content.items(), *parameters.items()):
        if name in given:
            raise InvalidInputError(f"{name}: expected once, got it in parameters, too", field=name)
        if name not in _INPUTS and name not in ATTRIBUTES and name not in _ADMISSION:
            if name in _ALWAYS_EMPTY and not value:
                continue
            known = listed((*_INPUTS, *ATTRIBUTES, *_ADMISSION), most=len(_INPUTS) + len(ATTRIBUTES) + len(_ADMISSION))
            path = clipped(name) or '""'
            raise InvalidInputError(f"{path}: no such input or parameter, expected one of {known}", field=path)
        if value is not None:
            given[name] = value
    return given


def _input(name: str, value: object) -> object:
    datatype = _INPUTS[name]
    if datatype in _KINDS:
        kind, expected = _KINDS[datatype]
        if not isinstance(value, kind):
            raise InvalidInputError(f"{name}: expected {expected}, got {kind_of(value)}", field=name)
        return value
    if not isinstance(value, list) or not all(type(each) is int for each in value):
        others = (kind_of(each) for each in value if type(each) is not int) if isinstance(value, list) else ()
        got = next((f"{other} in it" for other in others), kind_of(value))
        raise InvalidInputError(f"{name}: expected an array of integers, got {got}", field=name)
    return value


class TritonAnswer(AnswerWriter):
    """Writes the answer to one request; ``in_events`` also if it is whole."""

    def __init__(self, request: TritonRequest, *, in_events: bool) -> None:
        self._request = request
        self._in_events = in_events

    def choice(self, index: int) -> ChoiceWriter:  # noqa: ARG002  (there is one)
        """See `AnswerWriter.choice`."""
        return _Outputs(self._request)

    def whole(self, choices: Sequence[Json], usages: Sequence[Usage]) -> HttpBody:  # noqa: ARG002  (of the contract)
        """See `AnswerWriter.whole`."""
        return HttpBody(self.event(choices[0]), EVENT_HEADERS) if self._in_events else json_answer(choices[0])

    def event(self, choice: Json) -> bytes:
        """See `AnswerWriter.event`."""
        return b"data: " + orjson.dumps(choice) + b"\n\n"

    def end(self, usages: Sequence[Usage]) -> bytes:  # noqa: ARG002  (of the contract)
        """See `AnswerWriter.end`."""
        return b""

    def error(self, body: bytes) -> bytes:
        """See `AnswerWriter.error`."""
        return b"data: " + body + b"\n\n"


class _Outputs(ChoiceWriter):
    """The outputs of a request."""

    def __init__(self, request: TritonRequest) -> None:
        self._request_id = request.params.request_id
        self._outputs = TritonOutputs(request)
        self.includes_tokens = "output_ids" in request.outputs
        self._names: Json = {}

    def prefix(self, version: ModelVersion, request: GenerationRequest) -> None:
        """Record the version and the length of the prompt; there is no content before the output."""
        self._outputs.prompt_tokens = len(request.prompt)
        self._names = {"model_name": version.name, "model_version": version.version}
        if self._request_id:
            self._names["id"] = self._request_id

    def piece(self, delta: Delta) -> Json:
        """Return the outputs with the generated piece."""
        return {**self._names, **{name: _json_of(array) for name, array in self._outputs.next_outputs(delta).items()}}

    def whole(self, delta: Delta) -> Json:
        """Return the outputs with the whole text."""
        return self.piece(delta)


def _json_of(array: Array) -> object:
    """Return an output as Triton writes it: without an array if it is one element."""
    values = [each.decode() if isinstance(each, bytes) else each for each in array.tolist()]
    return values[0] if len(values) == 1 and array.dtype != np.int64 else values

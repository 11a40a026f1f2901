"""Requests to language models by the Open Inference Protocol, with the inputs and outputs of Triton's vLLM backend."""

from typing import Any

from inferd._generated.inference import grpc_service_pb2 as pb
from inferd.api.generation.delta_sender import append_delta
from inferd.api.generation.generations import Generations
from inferd.api.generation.params import GenerationParams
from inferd.api.generation.triton import SIGNATURE, TritonOutputs, TritonRequest, read_request
from inferd.api.handler_resources import HandlerResources
from inferd.api.model_waits import Waited
from inferd.api.oip.codec import PATHS, decode_inputs, encode_response
from inferd.api.oip.parameters import of_message, priority_and_timeout, reject_shared_memory
from inferd.api.request_decoder import IncomingRequest
from inferd.api.status import abort
from inferd.api.tensors import invalid
from inferd.api.wire_scanner import MessageLimits
from inferd.errors import ServingError
from inferd.generation.request import Delta, GenerationRequest
from inferd.models.version import ModelVersion
from inferd.rpc import UnaryCall

_FIELDS = {name: PATHS[name] for name in ("model", "priority", "timeout")}


def read(request: pb.ModelInferRequest, limits: MessageLimits) -> TritonRequest:
    """Read a request to a language model; any thread. Raises `InvalidInputError`."""
    parameters = of_message(request.parameters)
    priority, timeout_s = priority_and_timeout(parameters)
    inputs: dict[str, Any] = {}
    for name, array in decode_inputs(request, SIGNATURE, limits).items():
        if name == "input_ids":
            inputs[name] = array
        elif array.size != 1:
            raise invalid(name, f"expected one element, got {array.size}", "shape")
        else:
            inputs[name] = array.item()
    for position, output in enumerate(request.outputs):
        reject_shared_memory("output", position, output.name, of_message(output.parameters))
    base = GenerationParams(
        prompt="",
        model=request.model_name,
        version=request.model_version,
        request_id=request.id,
        priority=priority,
        timeout_s=timeout_s,
        fields=_FIELDS,
    )
    return read_request(base, inputs, [output.name for output in request.outputs], parameters)


class Responses:
    """Encodes the responses to one request, as `pb.ModelInferResponse`."""

    def __init__(self, request: TritonRequest) -> None:
        self._outputs = TritonOutputs(request)
        self._own_id = request.params.request_id
        self._names = ("", "")

    def started(self, version: ModelVersion, request: GenerationRequest) -> None:
        """Record the version and the prompt; before the first response."""
        self._names = version.name, version.version
        self._outputs.prompt_tokens = len(request.prompt)

    def encode(self, delta: Delta) -> bytes:
        """Return the response with what was generated."""
        return encode_response(*self._names, self._own_id, self._outputs.next_outputs(delta))


class UnaryGenerations:
    """Answers unary requests with all of what was generated; on the poll thread."""

    def __init__(self, resources: HandlerResources) -> None:
        self._resources = resources
        self._generations = Generations(resources)

    def begin(self, call: UnaryCall, incoming: IncomingRequest[pb.ModelInferRequest], waited: Waited | None) -> None:
        """Answer ``call``. Raises `InvalidInputError`."""
        assert incoming.parsed is not None, "templates are those of tensors"
        request = read(incoming.parsed, self._resources.limits)
        answer = _WholeAnswer(call, self._resources, request)
        call.on_terminated(self._generations.begin(call, request.params, answer, waited=waited))


class _WholeAnswer:
    """Collects what is generated for a unary call."""

    def __init__(self, call: UnaryCall, resources: HandlerResources, request: TritonRequest) -> None:
        self._call = call
        self._statuses = resources.statuses
        self._responses = Responses(request)
        self._whole = Delta(token_ids=[])

    def on_started(self, version: ModelVersion, request: GenerationRequest) -> None:
        """See `GenerationReceiver`."""
        self._responses.started(version, request)

    def on_delta(self, delta: Delta) -> None:
        """See `Receiver`."""
        append_delta(self._whole, delta)
        if delta.finish_reason is not None:
            self._call.reply(self._responses.encode(self._whole))

    def on_error(self, error: ServingError) -> None:
        """See `Receiver`."""
        abort(self._call, self._statuses, error)

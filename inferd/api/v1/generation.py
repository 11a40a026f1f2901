"""``inferd.v1.GenerationService``: streams the output of language models, and tokenizes prompts."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc

from inferd._generated.inferd.v1 import generation_pb2 as pb
from inferd.api.admission import charge_invalid
from inferd.api.generation.delta_sender import DeltaSender
from inferd.api.generation.generations import Generations
from inferd.api.generation.params import GenerationParams
from inferd.api.generation.tokenization import Tokenizations, Tokenized
from inferd.api.handler_resources import HandlerResources
from inferd.api.request_decoder import LARGE_BYTES
from inferd.api.status import abort, finish
from inferd.api.v1.generation_codec import GenerationCodec, response_of
from inferd.call_context import log_fields, set_message_id
from inferd.errors import InferenceFailedError, ServingError
from inferd.generation.request import Delta, GenerationRequest
from inferd.models.version import ModelVersion
from inferd.rpc import Call, StreamCall, UnaryCall, callback_answer_stream, callback_unary

_log = logging.getLogger(__name__)

Fail = Callable[[ServingError], None]


class GenerationService:
    """Handlers of the service's methods."""

    def __init__(self, resources: HandlerResources) -> None:
        self._resources = resources
        self._codec = GenerationCodec(resources.limits)
        self._generations = Generations(resources)
        self._tokenizations = Tokenizations(resources)

    def handlers(self) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
        """Return the handler of each method, by name."""
        return {"Generate": callback_answer_stream(self._generate), "Tokenize": callback_unary(self._tokenize)}

    def _generate(self, call: StreamCall, message: bytes) -> None:
        answer = _Answer(call, self._resources)

        def begin(params: GenerationParams) -> None:
            answer.begin(self._generations, params)

        self._read(call, partial(self._codec.generate, message), len(message), begin, answer.on_error)

    def _tokenize(self, call: UnaryCall, message: bytes) -> None:
        fail = partial(abort, call, self._resources.statuses)

        def begin(params: GenerationParams) -> None:
            self._tokenizations.begin(call, params, lambda tokens: call.reply(_tokenized(tokens)), fail)

        self._read(call, partial(self._codec.tokenize, message), len(message), begin, fail)

    def _read(
        self,
        call: Call,
        read: Callable[[], GenerationParams],
        size: int,
        begin: Callable[[GenerationParams], None],
        fail: Fail,
    ) -> None:
        """Read a message, a large one in the thread for them, and ``begin`` on the poll thread, or ``fail``."""
        call_soon = self._resources.call_soon

        def in_thread() -> None:
            try:
                params = read()
            except ServingError as error:
                call_soon(partial(fail, charge_invalid(call, error)))
            except Exception:  # noqa: BLE001  (the thread must go on, and the call must end)
                _log.exception("could not read a request of %s", call.method, extra=log_fields(call))
                call_soon(partial(fail, InferenceFailedError()))
            else:
                call_soon(partial(begin, params))

        try:
            if size > LARGE_BYTES:
                self._resources.large_messages.decode(in_thread)
                return
            params = read()
        except ServingError as error:
            fail(charge_invalid(call, error))
        else:
            begin(params)


class _Answer:
    """The answer of one call of ``Generate``; on the poll thread, except `_revoke`."""

    def __init__(self, call: StreamCall, resources: HandlerResources) -> None:
        self._call = call
        self._resources = resources
        self._sender = DeltaSender(call, call.send)
        self._own_id = ""
        #: What only the first response has.
        self._head = b""
        self._cancel: Callable[[], None] | None = None

    def begin(self, generations: Generations, params: GenerationParams) -> None:
        """Begin to generate."""
        call = self._call
        if params.request_id:
            self._own_id = params.request_id
            set_message_id(call, params.request_id)
        self._cancel = generations.begin(call, params, self)
        call.on_terminated(self._cancel)
        if call.context.principal is not None:
            # For authentication, which ends the call when its credential expires or is revoked.
            call.annotations["end_stream"] = self._revoke

    def on_started(self, version: ModelVersion, _request: GenerationRequest) -> None:
        """See `GenerationReceiver`."""
        head = pb.GenerateResponse(model=version.name, version=version.version, request_id=self._own_id)
        self._head = head.SerializeToString()

    def on_delta(self, delta: Delta) -> None:
        """See `Receiver`."""
        self._sender.send(self, delta)
        if delta.finish_reason is not None:
            self._call.finish()

    def on_error(self, error: ServingError) -> None:
        """See `Receiver`. What was generated before is sent first."""
        self._sender.flush(self)
        self._finish(error)

    def encode(self, delta: Delta) -> bytes:
        """See `Encoder`; encoded messages are merged by joining them."""
        head, self._head = self._head, b""
        return head + response_of(delta).SerializeToString()

    def _revoke(self, error: ServingError) -> None:
        """End the call with ``error``; any thread."""
        self._finish(error)
        if self._cancel is not None:
            self._resources.call_soon(self._cancel)

    def _finish(self, error: ServingError) -> None:
        finish(self._call, self._resources.statuses, error)


def _tokenized(tokens: Tokenized) -> bytes:
    return pb.TokenizeResponse(
        model=tokens.version.name, version=tokens.version.version, token_ids=tokens.ids.tolist(), text=tokens.text
    ).SerializeToString()

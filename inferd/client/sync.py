"""The client for ordinary, blocking code."""

import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self, TypeVar, get_args

import grpc

from inferd._generated.inferd.v1 import generation_pb2, generation_pb2_grpc, inference_pb2_grpc
from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.arguments import MetadataLike
from inferd.client import messages, repository
from inferd.client.base import (
    TRANSIENT_ERRORS,
    BaseClient,
    CallParams,
    ReadinessWait,
    why_model_not_ready,
    why_server_not_ready,
)
from inferd.client.channel import INFER, STREAM_INFER
from inferd.client.coalescing import SharedStream
from inferd.client.codec import Inputs
from inferd.client.errors import NOT_READY, InferdError, from_rpc_error, out_of_time, own_metadata
from inferd.client.generation_messages import Collected
from inferd.client.generation_streams import Generation
from inferd.client.repository import CONTROL_TIMEOUT_S, ModelConfig
from inferd.client.results import IndexEntry, ModelInfo, Result, Routing, StreamItem
from inferd.client.stream import Feed, StreamInput, StreamLedger
from inferd.health_check import METHOD as HEALTH_METHOD
from inferd.health_check import encode_check

_Response = TypeVar("_Response")

# The classes take arguments only in the stubs.
ClientInterceptor = (
    grpc.UnaryUnaryClientInterceptor  # type: ignore[type-arg]
    | grpc.UnaryStreamClientInterceptor  # type: ignore[type-arg]
    | grpc.StreamUnaryClientInterceptor  # type: ignore[type-arg]
    | grpc.StreamStreamClientInterceptor  # type: ignore[type-arg]
)


class Client(BaseClient[ClientInterceptor, Generation]):
    """A connection to an inferd server: numpy in, numpy out.

    ``timeout_s`` is the default timeout of a call, retries included; None or infinity is no limit. ``token`` is sent as
    a bearer token: over TLS, or to this machine, or anywhere with ``allow_insecure_token``. ``metadata`` is sent with
    every call. ``retry=None`` disables retries. With ``round_robin`` calls alternate between all addresses of the name
    whose health is SERVING. With ``coalesce`` the calls of `infer` share a stream, which is much cheaper where many
    threads call at once; they then fail together with it, and are not retried. With ``wait_for_ready`` calls wait for
    a connection until their timeout, instead of failing without one.

    ``options`` are gRPC's for the channel and override the client's own; ``interceptors`` and ``compression`` are
    gRPC's as well. Servers reject compressed requests unless they are configured to accept them.

    Thread-safe. The connection is made by the first call, and again after it was lost. `close`, or leaving the ``with``
    block, cancels the calls in progress (`Cancelled`). gRPC does not survive a fork: a client that is used in another
    process than its own raises RuntimeError; create one in each. Invalid arguments raise `TypeError` or `ValueError`
    naming the argument.
    """

    def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        outputs: Sequence[str] = (),
        version: str = "",
        priority: int = 0,
        timeout_s: float | None = None,
        request_id: str = "",
        metadata: MetadataLike | None = None,
        wait_for_ready: bool | None = None,
    ) -> Result:
        """Run ``model`` once.

        ``inputs`` are arrays by name, with the dtype and shape that the model declares. ``outputs`` names the wanted
        ones, by default all; ``version`` is by default the highest; ``priority`` 1 is served first, 0 is the model's
        default, and the number after the model's ``priority_levels`` is served while nothing else waits.
        ``request_id`` is returned in the result and appears in the server's log. ``metadata`` is sent with this call
        and replaces the client's values of the same keys; the result then has the trailing ``metadata``.
        ``timeout_s`` 0 fails immediately. Raises a subclass of `InferdError`.
        """
        self._lifetime.check()
        params = self._params(timeout_s, metadata, wait_for_ready)
        if request_id != "":
            messages.checked_request_id(request_id)
        try:
            fields = messages.input_fields(inputs)
            if self._shared is not None and not self._needs_own_call(fields, params):
                writer = messages.request_writer(model, version, outputs, priority, params[0])
                return self._shared.infer(writer, fields, request_id, params[0])
            request = messages.request_writer(model, version, outputs, priority, None).write(request_id, fields)
            if metadata is None:
                return messages.result(_call(self._infer, request, params))
            response, call = _call(self._infer.with_call, request, params)
            return messages.result(response, own_metadata(call.trailing_metadata()))
        except InferdError as error:
            error.request_id = request_id or error.request_id
            raise

    def stream(
        self,
        model: str,
        inputs: Iterable[StreamInput],
        *,
        outputs: Sequence[str] = (),
        version: str = "",
        priority: int = 0,
        timeout_s: float | None = None,
        max_in_flight: int = 64,
        ordered: bool = False,
        metadata: MetadataLike | None = None,
        wait_for_ready: bool | None = None,
    ) -> Generator[StreamItem, None, None]:
        """Run ``model`` on every element of ``inputs`` over one stream, and yield the outcomes.

        An element is a mapping as for `infer`, or a pair of a request id and such a mapping. Items are yielded as they
        finish, or with ``ordered`` in the order of ``inputs``. A request that fails yields an item with an error; the
        others continue, and it is not retried.

        ``inputs`` is read lazily by another thread, at most ``max_in_flight`` elements ahead of what was yielded. If it
        raises, or an element cannot be sent, the requests before it are finished and yielded, and then the exception
        is raised here. ``timeout_s`` applies to each request from its arrival at the server, by default the model's;
        the stream as a whole has no deadline, and with ``wait_for_ready`` waits for a connection indefinitely. Leaving
        the loop early cancels the requests in progress. Raises `InferdError` if the stream itself fails.
        """
        self._lifetime.check()
        params = self._params(None, metadata, wait_for_ready)
        ledger = self._ledger(model, outputs, version, priority, timeout_s, ordered=ordered)
        return self._run_stream(Feed(inputs, ledger, max_in_flight), ledger, params)

    def models(
        self,
        *,
        timeout_s: float | None = None,
        metadata: MetadataLike | None = None,
        wait_for_ready: bool | None = None,
    ) -> list[ModelInfo]:
        """Describe every model version that the server knows, by name, then by version, the highest first."""
        self._lifetime.check()
        params = self._params(timeout_s, metadata, wait_for_ready)
        response = _call(self._stub.ListModels, pb.ListModelsRequest(), params)
        return [messages.model_info(model) for model in response.models]

    def model(
        self,
        name: str,
        *,
        version: str = "",
        load: bool = False,
        timeout_s: float | None = None,
        metadata: MetadataLike | None = None,
        wait_for_ready: bool | None = None,
    ) -> ModelInfo:
        """Describe one model version, by default the highest.

        With ``load``, a model that is loaded on demand is loaded for that; otherwise its inputs and outputs are unknown
        while it is not.
        """
        params = self._params(timeout_s, metadata, wait_for_ready)
        return self._model(messages.model_request(name, version, load=load), params)

    def load_model(
        self,
        name: str,
        *,
        version: str = "",
        config: ModelConfig | None = None,
        files: Mapping[str, bytes] | None = None,
        timeout_s: float | None = CONTROL_TIMEOUT_S,
        metadata: MetadataLike | None = None,
        wait_for_ready: bool | None = None,
    ) -> list[ModelInfo]:
        """Load a model from the server's repositories, or load it again; return its versions when it serves.

        By default those that its version policy chooses; ``version`` loads that one beside what serves. ``config``, in
        the fields of Triton's ModelConfig, replaces the model's own settings for this load, and ``files`` by
        VERSION/NAME, such as ``1/model.onnx``, its directory; they need a ``config``. What served before serves until
        then, and further if the load fails (`Internal`). A timeout, like every end of the call, gives the load up;
        None is the client's. `Unavailable` if the server loads models by itself only.
        """
        self._lifetime.check()
        request = repository.load_request(name, version, config, files)
        response = _call(self._stub.LoadModel, request, self._params(timeout_s, metadata, wait_for_ready))
        return [messages.model_info(model) for model in response.models]

    def unload_model(
        self,
        name: str,
        *,
        version: str = "",
        timeout_s: float | None = CONTROL_TIMEOUT_S,
        metadata: MetadataLike | None = None,
        wait_for_ready: bool | None = None,
    ) -> None:
        """Unload a model, or one ``version`` of it; return when its admitted requests have been answered."""
        self._lifetime.check()
        request = repository.unload_request(name, version)
        _call(self._stub.UnloadModel, request, self._params(timeout_s, metadata, wait_for_ready))

    def repository_index(
        self,
        *,
        ready: bool = False,
        timeout_s: float | None = None,
        metadata: MetadataLike | None = None,
        wait_for_ready: bool | None = None,
    ) -> list[IndexEntry]:
        """List the models of the server's repositories, loaded or not, or with ``ready`` those that serve."""
        self._lifetime.check()
        request = repository.index_request(ready)
        response = _call(self._stub.IndexModels, request, self._params(timeout_s, metadata, wait_for_ready))
        return repository.index_entries(response)

    def routing(
        self,
        name: str,
        *,
        timeout_s: float | None = None,
        metadata: MetadataLike | None = None,
        wait_for_ready: bool | None = None,
    ) -> Routing:
        """Return how requests are routed to the versions of a model."""
        self._lifetime.check()
        request = repository.routing_request(name)
        response = _call(self._stub.GetRouting, request, self._params(timeout_s, metadata, wait_for_ready))
        return repository.routing_of(response.routing)

    def set_routing(
        self,
        name: str,
        routing: Routing,
        *,
        timeout_s: float | None = None,
        metadata: MetadataLike | None = None,
        wait_for_ready: bool | None = None,
    ) -> Routing:
        """Route requests to the versions of a model in another way, and return how it is now.

        It holds until the model is loaded with other routing in its settings, or the server restarts. Raises
        `InvalidInput` if it leads to a version that is not ready.
        """
        self._lifetime.check()
        request = repository.set_routing_request(name, routing)
        response = _call(self._stub.SetRouting, request, self._params(timeout_s, metadata, wait_for_ready))
        return repository.routing_of(response.routing)

    def is_ready(
        self,
        model: str = "",
        *,
        version: str = "",
        timeout_s: float | None = None,
        metadata: MetadataLike | None = None,
    ) -> bool:
        """Whether the server, or one of its models, accepts requests. False also if there is no server."""
        try:
            return not self._why_not_ready(model, version, self._params(timeout_s, metadata, wait_for_ready=False))
        except NOT_READY:
            return False

    def wait_until_ready(
        self,
        model: str = "",
        *,
        version: str = "",
        timeout_s: float | None = None,
        metadata: MetadataLike | None = None,
    ) -> None:
        """Wait until the server, or one of its models, accepts requests; the server need not run yet.

        Asks at most once a second. Raises `DeadlineExceeded`, which says what was not ready, and immediately errors
        that waiting cannot fix, such as `PermissionDenied`.
        """
        limit_s, sent, waits = self._params(timeout_s, metadata, wait_for_ready=True)
        wait = ReadinessWait(limit_s)
        while True:
            try:
                reason: str | InferdError = self._why_not_ready(model, version, (wait.left_s(), sent, waits))
            except TRANSIENT_ERRORS as error:
                reason = error
            if not reason:
                return
            wait.not_ready(reason)
            time.sleep(wait.pause_s())

    def close(self) -> None:
        """Cancel all calls in progress and close the connection. May be called again."""
        self._lifetime.closed = True
        if not self._lifetime.forked:  # In a fork gRPC would hang, and the connection is the parent's.
            self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, *, coalesce: bool) -> None:
        config = self._config
        channel = (
            grpc.insecure_channel(config.address, config.options, config.compression)
            if config.credentials is None
            else grpc.secure_channel(config.address, config.credentials, config.options, config.compression)
        )
        self._channel = grpc.intercept_channel(channel, *self._interceptors)
        self._stub = inference_pb2_grpc.InferenceServiceStub(self._channel)
        self._generate = generation_pb2_grpc.GenerationServiceStub(self._channel).Generate
        self._health: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(HEALTH_METHOD, None, None)
        self._infer: grpc.UnaryUnaryMultiCallable[bytes, pb.InferResponse] = self._channel.unary_unary(
            INFER, None, pb.InferResponse.FromString
        )
        self._stream_infer: grpc.StreamStreamMultiCallable[bytes, pb.StreamInferResponse] = self._channel.stream_stream(
            STREAM_INFER, None, pb.StreamInferResponse.FromString
        )
        open_stream = partial(self._stream_infer, metadata=self._metadata, wait_for_ready=self._waits)
        self._shared = SharedStream(open_stream) if coalesce else None

    @classmethod
    def _interceptor_kinds(cls) -> tuple[type, ...]:
        return get_args(ClientInterceptor)

    def _model(self, request: pb.GetModelRequest, params: CallParams) -> ModelInfo:
        self._lifetime.check()
        response = _call(self._stub.GetModel, request, params)
        return messages.model_info(response.model)

    def _why_not_ready(self, model: str, version: str, params: CallParams) -> str:
        """Return why the server or a model is not ready; empty if it is."""
        if model != "":
            return why_model_not_ready(self._model(messages.model_request(model, version), params))
        self._lifetime.check()
        return why_server_not_ready(_call(self._health, encode_check(), params))

    def _generation(self, request: generation_pb2.GenerateRequest, params: CallParams) -> Generation:
        self._lifetime.check()
        answer = Collected(request.request_id)
        return Generation(self._responses(request, params, answer), answer)

    def _responses(
        self, request: generation_pb2.GenerateRequest, params: CallParams, answer: Collected
    ) -> Generator[generation_pb2.GenerateResponse, None, None]:
        self._lifetime.check()
        timeout_s, metadata, waits = params
        if timeout_s == 0:
            raise out_of_time(timeout_s)
        call = self._generate(request, timeout=timeout_s, metadata=metadata, wait_for_ready=waits)
        try:
            for response in call:
                yield response
                self._lifetime.check_process()
            answer.metadata = own_metadata(call.trailing_metadata())
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        finally:
            if not self._lifetime.forked:
                call.cancel()  # type: ignore[no-untyped-call] # as below

    def _run_stream(self, feed: Feed, ledger: StreamLedger, params: CallParams) -> Generator[StreamItem, None, None]:
        self._lifetime.check()
        _, metadata, waits = params
        call = self._stream_infer(feed.messages(), metadata=metadata, wait_for_ready=waits)
        try:
            for message in call:
                for result in message.results:
                    for item in ledger.settle(result):
                        feed.free_slot()
                        yield item
                self._lifetime.check_process()
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        finally:
            if not self._lifetime.forked:  # In a fork, locks may be held by threads that do not exist.
                feed.stop()
                call.cancel()  # type: ignore[no-untyped-call] # the stubs leave its result out
        if feed.failure is not None:
            raise feed.failure
        ledger.finish()


def _call(method: Callable[..., _Response], request: object, params: CallParams) -> _Response:
    """Start a call and wait for its end."""
    timeout_s, metadata, waits = params
    if timeout_s == 0:  # gRPC may still answer such a call.
        raise out_of_time(timeout_s)
    try:
        return method(request, timeout=timeout_s, metadata=metadata, wait_for_ready=waits)
    except grpc.RpcError as error:
        raise from_rpc_error(error) from None

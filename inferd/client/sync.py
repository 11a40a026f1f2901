"""The client for ordinary, blocking code."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

import grpc

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd._generated.inferd.v1 import inference_pb2_grpc
from inferd.client import messages
from inferd.client.channel import INFER, MAX_MESSAGE_BYTES, STREAM_INFER, RetryPolicy, channel_config
from inferd.client.codec import Inputs
from inferd.client.errors import NOT_READY, from_rpc_error
from inferd.client.feed import Feed
from inferd.client.ledger import StreamInput, StreamLedger
from inferd.client.lifetime import Lifetime
from inferd.client.pack import MESSAGE_BYTES
from inferd.client.results import ModelInfo, ModelState, Result, StreamItem
from inferd.client.shared import SharedStream
from inferd.endpoint import TLS
from inferd.health_check import METHOD as HEALTH_METHOD
from inferd.health_check import HealthStatus, question, status_of

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class Client:
    """A connection to an inferd server: numpy in, numpy out.

    ``timeout_s`` is how long a call may take, retries included, where the call does not say; None is for ever.
    ``token`` is sent as a bearer token: over TLS, or to this machine, or anywhere with ``allow_insecure_token``.
    ``metadata`` goes with every call. ``retry=None`` turns retries off. With ``round_robin`` calls go by turns to all
    addresses of the name whose health is SERVING, instead of to one. With ``coalesce`` the calls of `infer` share a
    stream, which costs much less where many threads call at once; they then share its fate and are not retried.

    May be used by any number of threads at once. The connection is made by the first call and made again when it is
    lost. `close`, or leaving the ``with`` block, cancels the calls that are under way (`Cancelled`). gRPC does not
    survive a fork: a client used in another process than its own raises RuntimeError; make one in each.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        allow_insecure_token: bool = False,
        tls: TLS | None = None,
        timeout_s: float | None = 30.0,
        retry: RetryPolicy | None = RetryPolicy(),  # noqa: B008 - frozen, so it can be shared
        round_robin: bool = False,
        metadata: Mapping[str, str | bytes] | None = None,
        max_receive_bytes: int = MAX_MESSAGE_BYTES,
        coalesce: bool = False,
    ) -> None:
        config = channel_config(
            address,
            token=token,
            allow_insecure_token=allow_insecure_token,
            tls=tls,
            retry=retry,
            round_robin=round_robin,
            metadata=metadata,
            max_receive_bytes=max_receive_bytes,
        )
        self._timeout_s = timeout_s
        self._metadata = config.metadata
        self._channel = (
            grpc.insecure_channel(config.address, config.options)
            if config.credentials is None
            else grpc.secure_channel(config.address, config.credentials, config.options)
        )
        self._stub = inference_pb2_grpc.InferenceServiceStub(self._channel)
        self._health: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(HEALTH_METHOD, None, None)
        self._infer: grpc.UnaryUnaryMultiCallable[bytes, pb.InferResponse] = self._channel.unary_unary(
            INFER, None, pb.InferResponse.FromString
        )
        self._stream_infer: grpc.StreamStreamMultiCallable[bytes, pb.StreamInferResponse] = self._channel.stream_stream(
            STREAM_INFER, None, pb.StreamInferResponse.FromString
        )
        self._shared = SharedStream(partial(self._stream_infer, metadata=config.metadata)) if coalesce else None
        self._lifetime = Lifetime()

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
    ) -> Result:
        """Run ``model`` once.

        ``inputs`` are arrays by name, with the dtype and shape that the model declares. ``outputs`` names the wanted
        ones, by default all; ``version`` is by default the highest; ``priority`` 1 is served first, 0 is the model's
        default. ``request_id`` comes back in the result and stands in the server's log.
        Raises `InferdError`, of the class that fits.
        """
        fields, limit_s = messages.input_fields(inputs), self._timeout_s if timeout_s is None else timeout_s
        if self._shared is None or sum(map(len, fields)) > MESSAGE_BYTES:
            writer = messages.request_writer(model, version, tuple(outputs), priority, None)
            return messages.result(self._call(self._infer, writer.write(request_id, fields), limit_s))
        self._lifetime.check()
        writer = messages.request_writer(model, version, tuple(outputs), priority, limit_s)
        return self._shared.infer(writer, fields, request_id, limit_s)

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
    ) -> Generator[StreamItem, None, None]:
        """Run ``model`` on every element of ``inputs`` over one stream, and yield what each came to.

        An element is a mapping as for `infer`, or a pair of a request id and such a mapping. Items come as they
        finish, or with ``ordered`` in the order of ``inputs``. A request that fails gives an item with an error and
        the others go on; such requests are not retried.

        ``inputs`` is read lazily, by another thread, and never more than ``max_in_flight`` elements ahead of what was
        yielded. If it raises, or an element cannot be sent, the requests before it are finished and yielded, and then
        the exception comes out here. ``timeout_s`` is for each request, from its arrival at the server, by default
        the model's; the stream as a whole has no deadline. Leaving the loop early cancels what is under way. Raises
        `InferdError` if the stream itself breaks.
        """
        self._lifetime.check()
        writer = messages.request_writer(model, version, tuple(outputs), priority, timeout_s)
        ledger = StreamLedger(writer, ordered=ordered)
        return self._run_stream(Feed(inputs, ledger, max_in_flight), ledger)

    def models(self, *, timeout_s: float | None = None) -> list[ModelInfo]:
        """Describe every model version that the server knows, by name, then by version, the highest first."""
        response = self._call(self._stub.ListModels, pb.ListModelsRequest(), timeout_s)
        return [messages.model_info(model) for model in response.models]

    def model(self, name: str, *, version: str = "", timeout_s: float | None = None) -> ModelInfo:
        """Describe one model version, by default the highest."""
        response = self._call(self._stub.GetModel, pb.GetModelRequest(model=name, version=version), timeout_s)
        return messages.model_info(response.model)

    def is_ready(self, model: str = "", *, version: str = "", timeout_s: float | None = None) -> bool:
        """Whether the server takes requests, or this model of it. False also if nobody answers."""
        try:
            if model:
                return self.model(model, version=version, timeout_s=timeout_s).state is ModelState.READY
            answer = self._call(self._health, question(), timeout_s)
            return status_of(answer) is HealthStatus.SERVING
        except NOT_READY:
            return False

    def close(self) -> None:
        """Cancel what is under way and let go of the connection. May be called again."""
        self._lifetime.closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _call(
        self,
        method: "grpc.UnaryUnaryMultiCallable[_Request, _Response]",
        request: _Request,
        timeout_s: float | None,
    ) -> _Response:
        self._lifetime.check()
        try:
            return method(request, timeout=self._timeout_s if timeout_s is None else timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None

    def _run_stream(self, feed: Feed, ledger: StreamLedger) -> Generator[StreamItem, None, None]:
        call = self._stream_infer(feed.messages(), metadata=self._metadata)
        try:
            for message in call:
                for result in message.results:
                    for item in ledger.settle(result):
                        feed.free_slot()
                        yield item
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        finally:
            feed.stop()
            call.cancel()  # type: ignore[no-untyped-call] # the stubs leave its result out
        if feed.failure is not None:
            raise feed.failure
        ledger.finish()

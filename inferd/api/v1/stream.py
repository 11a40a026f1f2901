"""``StreamInfer``: messages of one or more requests, responses in the order in which they finish."""

from collections.abc import Sequence

from inferd import wire
from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.api.handler_resources import HandlerResources
from inferd.api.request_decoder import RequestDecoder
from inferd.api.stream import RequestStream
from inferd.api.stream_request import StreamRequest
from inferd.api.wire_scanner import malformed
from inferd.errors import InvalidInputError, ServingError
from inferd.rpc import StreamCall

_REQUESTS = wire.tag(pb.StreamInferRequest, "requests")
_RESULTS = wire.tag(pb.StreamInferResponse, "results")
_REQUEST_ID, _RESPONSE, _ERROR = (wire.tag(pb.InferResult, name) for name in ("request_id", "response", "error"))

#: Unknown fields that a message may have.
_MAX_OTHER_FIELDS = 64

#: Results share a message up to this size. By default clients accept 4 MiB; a larger message ends the stream.
MESSAGE_BYTES = 1024 * 1024


class InferenceStream(RequestStream[pb.InferRequest]):
    """One ``StreamInfer`` call."""

    _path_to_requests = "requests."

    def __init__(self, call: StreamCall, decoder: RequestDecoder[pb.InferRequest], resources: HandlerResources) -> None:
        super().__init__(call, decoder, resources)
        self._ready: list[bytes] = []

    def _split(self, message: bytes) -> Sequence[bytes]:
        try:
            contents = self._contents(message)
        except wire.MalformedError:
            raise malformed(pb.StreamInferRequest.DESCRIPTOR.full_name) from None
        if not contents:
            raise InvalidInputError("requests: expected at least one, got none", field="requests")
        return contents

    def _contents(self, message: bytes) -> list[bytes]:
        contents: list[bytes] = []
        others, max_requests = 0, self._resources.limits.requests
        for content in wire.contents(message, _REQUESTS):
            if content is None:
                others += 1
            else:
                contents.append(content)
            if len(contents) > max_requests:
                msg = f"requests: expected at most {max_requests} in a message, got more"
                raise InvalidInputError(msg, field="requests")
            if others > _MAX_OTHER_FIELDS:
                msg = f"the message: expected at most {_MAX_OTHER_FIELDS} unknown fields, got more"
                raise InvalidInputError(msg)
        return contents

    def _opened(self, request: StreamRequest[pb.InferRequest]) -> None:
        """Record nothing: responses are sent in any order."""

    def _collect(self, request: StreamRequest[pb.InferRequest], outcome: bytes | ServingError) -> ServingError | None:
        if isinstance(outcome, ServingError):
            content = wire.field(_ERROR, self._resources.statuses.status_of(outcome).to_bytes())
        else:
            content = wire.field(_RESPONSE, outcome)
        own_id = request.incoming.request_id
        if own_id:
            content = wire.field(_REQUEST_ID, own_id.encode()) + content
        self._ready.append(wire.field(_RESULTS, content))
        return None

    def _take_messages(self) -> Sequence[bytes]:
        ready, self._ready = self._ready, []
        return _joined(ready)


def _joined(messages: Sequence[bytes]) -> list[bytes]:
    """Join messages in their order: encoded messages are merged by joining them."""
    joined: list[bytes] = []
    together: list[bytes] = []
    size = 0
    for message in messages:
        if together and size + len(message) > MESSAGE_BYTES:
            joined.append(b"".join(together))
            together, size = [], 0
        together.append(message)
        size += len(message)
    if together:
        joined.append(b"".join(together))
    return joined

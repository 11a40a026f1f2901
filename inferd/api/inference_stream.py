"""``StreamInfer``: requests in messages of one or several, results as they finish."""

from collections.abc import Sequence

from inferd import wire
from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.api.parsing import scanned
from inferd.api.reader import RequestReader
from inferd.api.streaming import RequestStream, StreamItem, StreamParts
from inferd.errors import InvalidInputError, ServingError
from inferd.rpc import StreamCall

_REQUESTS = wire.tag(pb.StreamInferRequest, "requests")
_RESULTS = wire.tag(pb.StreamInferResponse, "results")
_REQUEST_ID, _RESPONSE, _ERROR = (wire.tag(pb.InferResult, name) for name in ("request_id", "response", "error"))

#: Unknown fields that a message may have besides its requests.
_MAX_OTHER_FIELDS = 64

#: Results share a message up to this size. By default callers take 4 MiB, and lose the stream to a larger message.
MESSAGE_BYTES = 1024 * 1024


class InferenceStream(RequestStream[pb.InferRequest]):
    """One ``StreamInfer`` call."""

    _path_to_requests = "requests."

    def __init__(self, call: StreamCall, reader: RequestReader[pb.InferRequest], parts: StreamParts) -> None:
        super().__init__(call, reader, parts)
        self._ready: list[bytes] = []
        self._max_requests = parts.limits.requests

    def _split(self, message: bytes) -> Sequence[bytes]:
        contents = scanned(self._contents, pb.StreamInferRequest, message)
        if not contents:
            raise InvalidInputError("requests: expected at least one, got none", field="requests")
        return contents

    def _contents(self, message: bytes) -> list[bytes]:
        contents: list[bytes] = []
        others = 0
        for content in wire.contents(message, _REQUESTS):
            if content is None:
                others += 1
            else:
                contents.append(content)
            if len(contents) > self._max_requests:
                msg = f"requests: expected at most {self._max_requests} in a message, got more"
                raise InvalidInputError(msg, field="requests")
            if others > _MAX_OTHER_FIELDS:
                msg = f"the message: expected at most {_MAX_OTHER_FIELDS} unknown fields, got more"
                raise InvalidInputError(msg)
        return contents

    def _opened(self, item: StreamItem[pb.InferRequest]) -> None:
        """Nothing to note: results go out in any order."""

    def _gather(self, item: StreamItem[pb.InferRequest], outcome: bytes | ServingError) -> ServingError | None:
        if isinstance(outcome, ServingError):
            content = wire.field(_ERROR, self._statuses.status_of(outcome).to_bytes())
        else:
            content = wire.field(_RESPONSE, outcome)
        if item.incoming.request_id:
            content = wire.field(_REQUEST_ID, item.incoming.request_id.encode()) + content
        self._ready.append(wire.field(_RESULTS, content))
        return None

    def _take_messages(self) -> Sequence[bytes]:
        ready, self._ready = self._ready, []
        return _joined(ready)


def _joined(messages: Sequence[bytes]) -> list[bytes]:
    """Put messages together, in their order: of a repeated field, the bytes of several are those of one."""
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

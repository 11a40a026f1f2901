"""Which requests of a stream are open, and when their results are handed over. Pure."""

from collections.abc import AsyncIterable, Iterable, Iterator, Mapping

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.arguments import checked_integer
from inferd.client import messages
from inferd.client.codec import Inputs
from inferd.client.errors import Internal, InvalidInput
from inferd.client.results import StreamItem

#: What callers put into a stream: inputs by name, or a request id of their own and such inputs.
StreamInput = Inputs | tuple[str, Inputs]


class StreamLedger:
    """Matches results to requests, and puts them in the requests' order if wanted.

    Invariant: each request that was opened is handed over once, or is among the ``unanswered``. One thread opens and
    another settles; what they share is one dictionary with single-step operations, and a request is opened before it
    is sent, so before it can be settled.
    """

    def __init__(self, writer: messages.RequestWriter, *, ordered: bool) -> None:
        self._writer = writer
        self._ordered = ordered
        self._open: dict[str, int] = {}
        self._opened = 0
        self._early: dict[int, StreamItem] = {}
        self._due = 0

    def open(self, element: StreamInput) -> bytes:
        """Enter the next request and write it, as an `InferRequest`. Raises as `infer` for what cannot be sent."""
        request_id, inputs = self._split(element)
        if request_id in self._open:
            raise InvalidInput(f'request_id "{request_id}": expected one that is not in flight on this stream')
        try:
            fields = messages.input_fields(inputs)
        except InvalidInput as error:
            error.request_id = request_id
            raise
        request = self._writer.write(request_id, fields)
        self._open[request_id] = self._opened
        self._opened += 1
        return request

    def _split(self, element: object) -> tuple[str, Inputs]:
        if isinstance(element, Mapping):
            return str(self._opened), element
        if not isinstance(element, tuple) or len(element) != 2:
            raise TypeError(
                f"inputs: expected a mapping of arrays by name, or a pair of a request id and one, as element "
                f"{self._opened}, got {type(element).__name__}"
            )
        request_id, inputs = element
        messages.check_request_id(request_id)
        return request_id, inputs

    def settle(self, result: pb.InferResult) -> Iterator[StreamItem]:
        """Take a result and yield what can be handed over now: this one, or in order as many as are due."""
        request_id = result.request_id
        index = self._open.pop(request_id, None)
        if index is None:
            raise Internal(f'the server answered request_id "{request_id}", which is not in flight')
        item = StreamItem(index=index, request_id=request_id, outcome=messages.stream_outcome(result, request_id))
        if not self._ordered:
            yield item
            return
        self._early[index] = item
        while (due := self._early.pop(self._due, None)) is not None:
            self._due += 1
            yield due

    def finish(self) -> None:
        """Raise `Internal` if the server ended the stream, as if all were well, without answering everything."""
        if self._open:
            raise Internal(f"the server ended the stream with {len(self._open)} requests unanswered")


def check_elements(inputs: object, *, asynchronous: bool) -> None:
    """Refuse what does not give elements one after another, and the inputs of a single request."""
    kinds = (Iterable, AsyncIterable) if asynchronous else (Iterable,)
    if isinstance(inputs, Mapping | str | bytes) or not isinstance(inputs, kinds):
        raise TypeError(
            f"inputs: expected an iterable whose elements are mappings of arrays by name, got {type(inputs).__name__}"
        )


def check_window(max_in_flight: int) -> None:
    """Refuse a window in which nothing could ever be sent."""
    checked_integer("max_in_flight", max_in_flight, 1)

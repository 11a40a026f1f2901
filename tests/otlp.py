"""A collector of OTLP over HTTP for tests, with OpenTelemetry's messages."""

import queue
import threading
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.patience import PATIENCE_S

TIMEOUT_S = PATIENCE_S


class Receiver:
    """Stores what it receives. ``answers`` are the statuses of the next posts, then 200.

    While ``held`` is set, posts are not answered.
    """

    def __init__(self, port: int = 0) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[Message] = []
        self.paths: list[str] = []
        self.answers: list[int] = []
        self.posted: queue.SimpleQueue[ExportTraceServiceRequest] = queue.SimpleQueue()
        self.go_on = threading.Event()
        self.go_on.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.paths.append(self.path)
                receiver.headers.append(self.headers)
                receiver.go_on.wait(TIMEOUT_S)
                status = receiver.answers.pop(0) if receiver.answers else 200
                if status == 200:
                    receiver.requests.append(request)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                receiver.posted.put(request)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, as if killed: open posts get no answer."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def spans(self) -> list[Span]:
        """All spans so far."""
        return [span for request in self.requests for span in spans_of(request)]

    def wait_for(self, name: str, count: int = 1) -> list[Span]:
        """Wait until there are this many spans of that name, and return them."""
        while len(found := [span for span in self.spans if span.name == name]) < count:
            self.posted.get(timeout=TIMEOUT_S)
        return found


def spans_of(request: ExportTraceServiceRequest) -> Iterator[Span]:
    """Yield the spans in a request."""
    for of in request.resource_spans:
        for scope in of.scope_spans:
            yield from scope.spans


def attributes(of: Span | Span.Event | Resource) -> dict[str, object]:
    """Return the attributes of a span, an event or a resource."""
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in of.attributes}

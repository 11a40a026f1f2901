"""A call over HTTP whose answer may be sent bit by bit."""

import json
from collections.abc import Callable

import grpc

from inferd.http.messages import HttpMessage
from inferd.http.status import error_answer
from inferd.rpc.core import EncodedMetadata
from tests.unit.api.fakes import FakeCall


class FakeHttpCall(FakeCall):
    """Its caller reads, or does not; errors have the ``error_form`` of its operation."""

    method = "POST /v1/completions"

    def __init__(self, error_form: Callable = lambda _, error: error) -> None:
        super().__init__()
        self.headers: dict[str, str] | None = None
        self.is_backed_up = False
        self.on_read: Callable[[], None] | None = None
        self.error: dict = {}
        self.status = 200
        self._error_form = error_form
        self._error_part: Callable[[bytes], bytes] = bytes

    def begin_stream(self, headers: tuple[tuple[str, str], ...], error_part: Callable[[bytes], bytes]) -> bool:
        assert self.headers is None, "once"
        self.headers = dict(headers)
        self._error_part = error_part
        return self.ended is None

    def finish_stream(self, last: bytes = b"") -> bool:
        assert self.headers is not None
        self.sent.append(last)
        return self.finish()

    def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: object = ()) -> bool:
        if not self.finish(code, details):
            return False
        assert isinstance(trailing_metadata, EncodedMetadata)
        answer = error_answer(code, details, trailing_metadata, self._error_form)
        self.error, self.status = json.loads(answer.body), answer.status
        if self.headers is not None:
            self.sent.append(self._error_part(answer.body))
        return True

    def when_read(self, callback: Callable[[], None]) -> None:
        self.on_read = callback

    def catch_up(self) -> None:
        """Read all that was sent."""
        self.is_backed_up = False
        if self.on_read is not None:
            self.on_read()

    @property
    def events(self) -> list:
        """What the events hold that were sent: JSON, but for the last one of OpenAI."""
        texts = b"".join(self.sent).decode().split("\n\n")
        assert texts.pop() == ""
        events = [text.removeprefix("data: ") for text in texts]
        return [event if event == "[DONE]" else json.loads(event) for event in events]

    @property
    def answer(self) -> dict:
        """The answer that was sent whole."""
        (body,) = self.sent
        return json.loads(body)


def message(content: object, path: dict[str, str] | None = None) -> HttpMessage:
    """Return a request with a body in JSON."""
    return HttpMessage(content if isinstance(content, bytes) else json.dumps(content).encode(), path or {})

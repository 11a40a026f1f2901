"""Decode inference requests over HTTP; binary requests that match a cached template skip parsing and validation."""

from collections.abc import Hashable

from inferd.api.codec import Codec
from inferd.api.request_decoder import CachingDecoder, IncomingRequest, Outline
from inferd.api.rest.codec import RestCodec
from inferd.api.rest.outlines import without_numbers
from inferd.api.rest.requests import RestRequest, outline_of, read_request
from inferd.api.wire_scanner import DEFAULT_LIMITS, Bounds, MessageLimits, Template
from inferd.errors import InvalidInputError
from inferd.http.messages import HttpMessage


class RestDecoder(CachingDecoder[HttpMessage, RestRequest]):
    """Decodes inference requests of HTTP; see `CachingDecoder`.

    Templates are those of requests whose inputs are all binary: the JSON, in which only the id may differ.
    """

    #: Names and punctuation take more in JSON than in protobuf messages.
    max_template_bytes = 4096

    def __init__(self, limits: MessageLimits = DEFAULT_LIMITS) -> None:
        codec: Codec[RestRequest] = RestCodec(limits)
        super().__init__(codec)

    def match(self, message: HttpMessage) -> IncomingRequest[RestRequest] | None:
        """Return a request that matches a cached template; None for any other."""
        if message.json_length is None:
            return None
        body = message.body
        for cached in self._templates.get(self.key_of(message), ()):
            template = cached.template
            if all(body.startswith(part, position) for part, position in template.fixed):
                request_id = "" if template.request_id is None else _plain_text(body, template.request_id)
                if request_id is not None:
                    view = memoryview(body).toreadonly()
                    return IncomingRequest(message, view, cached.name, cached.version, request_id, cached, cached.form)
        return None

    def outline(self, message: HttpMessage) -> Outline[RestRequest] | None:
        """Parse the JSON of ``message`` without the numbers of its tensors; None if it is long even so."""
        body = message.body
        length = len(body) if message.json_length is None else message.json_length
        text = without_numbers(body, length)
        if text is None:
            return None
        try:
            request = outline_of(text, message)
        except InvalidInputError:
            return None
        return Outline(request, *self.codec.header(request))

    def parse(self, message: HttpMessage) -> IncomingRequest[RestRequest]:
        """Parse a request that matches no cached template. Raises `InvalidInputError`."""
        request = read_request(message)
        return IncomingRequest(
            message,
            request.body,
            *self.codec.header(request),
            form=self.codec.form(request),
            parsed=request,
            template=self._template_of(message, request),
        )

    def key_of(self, message: HttpMessage) -> Hashable:
        """Return the model and the lengths, which requests of a template share."""
        path = message.path
        return path.get("model"), path.get("version"), message.json_length, len(message.body)

    def _template_of(self, message: HttpMessage, request: RestRequest) -> Template | None:
        length = message.json_length
        raw = [tensor.raw for tensor in request.inputs if tensor.raw is not None]
        if length is None or length > self.max_template_bytes or len(raw) < len(request.inputs):
            return None
        text = bytes(message.body[:length])
        if not request.request_id:
            return Template(((text, 0),), tuple(raw), None)
        bounds = _bounds_of_id(text, request.request_id)
        if bounds is None:
            return None
        start, end = bounds
        return Template(((text[:start], 0), (text[end:], end)), tuple(raw), bounds)


def _bounds_of_id(text: bytes, request_id: str) -> Bounds | None:
    """Return the bounds of the id in the JSON ``text``; None if they are ambiguous."""
    name = text.find(b'"id"')
    if b"\\" in text or name < 0 or text.find(b'"id"', name + 1) >= 0:
        return None
    start = text.find(b'"', name + len(b'"id"')) + 1
    end = start + len(request_id.encode())
    return (start, end) if text[start : end + 1] == request_id.encode() + b'"' else None


def _plain_text(body: bytes | bytearray, bounds: Bounds) -> str | None:
    """Return the text between ``bounds``; None if it is not the plain content of a JSON string."""
    start, end = bounds
    content = body[start:end]
    if b'"' in content or b"\\" in content:
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None

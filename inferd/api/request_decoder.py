"""Decode request messages; requests that match a cached template skip parsing and validation.

The result of parsing and validation depends on a request's template (see `wire_scanner`) and on the model, but not on
the numbers, if all tensors are raw, of fixed size, and none is shared by a batch. So it is cached by template, and a
request that matches costs a comparison of its fixed parts and one view of the message per tensor.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sized
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from inferd.api.admission import RequestParams, deadline_of, validate
from inferd.api.codec import RAW, Codec, Request, ResponseForm, WireCodec, WireRequest
from inferd.api.wire_scanner import Template, parse
from inferd.batching.request import InferenceRequest, Reply
from inferd.errors import InvalidInputError
from inferd.models.states import ModelState
from inferd.models.version import ModelVersion
from inferd.runtime.signature import ModelSignature, Tensors, TensorSpec

#: A message as its transport hands it over.
Sent = TypeVar("Sent", bound=Sized)

#: Keys with cached templates, and templates per key. They bound the memory that clients can fill, and the comparisons
#: per message.
_MAX_KEYS = 256
_MAX_TEMPLATES_PER_KEY = 4

#: Decoding a message of up to this size takes a few milliseconds at worst, whatever it holds.
LARGE_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class _TensorView:
    """Where and what one input is in each message of a template."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    elements: int
    start: int


@dataclass(frozen=True, slots=True)
class CachedTemplate:
    """A template, the model its requests ask for, and what validation against ``model`` returned."""

    template: Template
    name: str
    version: str
    model: ModelVersion
    tensors: tuple[_TensorView, ...]
    params: RequestParams
    form: ResponseForm


@dataclass(slots=True, eq=False)
class IncomingRequest(Generic[Request]):
    """A request whose model is yet to be looked up.

    ``message`` is as its transport handed it over, ``body`` the bytes of it that have the tensors. ``name`` and
    ``version`` are as requested. ``form`` is that of the response. ``cached`` is the template that matched; ``parsed``
    is None while it suffices. ``template`` is what the scan found, and ``learned`` what to add to the cache with
    `CachingDecoder.cache`.
    """

    message: Any
    body: bytes | bytearray | memoryview
    name: str
    version: str
    request_id: str
    cached: CachedTemplate | None = None
    form: ResponseForm = RAW
    parsed: Request | None = None
    template: Template | None = None
    learned: CachedTemplate | None = None


class Outline(NamedTuple, Generic[Request]):
    """The parts of a message that are not contents of tensors, parsed; and what they say of the request."""

    request: Request
    name: str
    version: str
    request_id: str


class CachingDecoder(ABC, Generic[Sent, Request]):
    """Decodes the requests of one protocol. `match` and `cache` are for the poll thread, the rest for any thread."""

    #: Bytes of a cached template.
    max_template_bytes = 1024

    def __init__(self, codec: Codec[Request]) -> None:
        self.codec = codec
        self._templates: dict[Hashable, list[CachedTemplate]] = {}

    @property
    def cached_templates(self) -> int:
        """Number of cached templates."""
        return sum(map(len, self._templates.values()))

    @abstractmethod
    def match(self, message: Sent) -> IncomingRequest[Request] | None:
        """Return a request that matches a cached template; None for any other."""

    @abstractmethod
    def outline(self, message: Sent) -> Outline[Request] | None:
        """Parse ``message`` without the contents of its tensors; None if it has much else in it, or is malformed.

        It takes some microseconds, whatever the size of the message.
        """

    @abstractmethod
    def parse(self, message: Sent) -> IncomingRequest[Request]:
        """Parse a request that matches no cached template. Raises `InvalidInputError`.

        A message of more than `LARGE_BYTES` must not be parsed, nor its request built, on the poll thread.
        """

    @abstractmethod
    def key_of(self, message: Sent) -> Hashable:
        """Return what all messages of a template have in common, to look up templates by."""

    def timeout_s(self, message: Sent) -> float | None:
        """Return the timeout that a request names; None for none, or if that takes long to find out."""
        outline = self.outline(message)
        try:
            return None if outline is None else self.codec.timeout_s(outline.request)
        except InvalidInputError:
            # Reported when the whole request is decoded.
            return None

    def build(
        self,
        incoming: IncomingRequest[Request],
        model: ModelVersion,
        reply: Reply,
        received_at: float,
        call_deadline: float,
    ) -> InferenceRequest:
        """Return the request for the queue of ``model``. Raises `InvalidInputError`."""
        cached = incoming.cached
        if cached is not None and cached.model is not model:
            cached = self._of_model(cached.template, incoming, model)
        if cached is not None:
            params = cached.params
            views: dict[str, NDArray[np.generic]] = {}
            for tensor in cached.tensors:
                flat = np.frombuffer(incoming.body, tensor.dtype, tensor.elements, tensor.start)
                views[tensor.name] = flat.reshape(tensor.shape)
            inputs: Tensors = views
        else:
            signature = model.require_signature()
            request = incoming.parsed or self._parsed_again(incoming)
            decoded = self.codec.decode(request, signature)
            params, inputs = validate(model, signature, decoded), decoded.inputs
            incoming.learned = _cacheable(incoming, model, signature, inputs, params, self.max_template_bytes)
        return InferenceRequest(
            inputs,
            params.outputs,
            params.rows,
            params.nbytes,
            params.stack_key,
            reply,
            received_at,
            deadline_of(params, received_at, call_deadline),
            params.priority,
        )

    def _parsed_again(self, incoming: IncomingRequest[Request]) -> Request:
        """Parse a request whose cached template does not suffice."""
        parsed = self.parse(incoming.message).parsed
        assert parsed is not None, "only requests that match a template are not parsed"
        return parsed

    def _of_model(
        self, template: Template, incoming: IncomingRequest[Request], model: ModelVersion
    ) -> CachedTemplate | None:
        """Return what is cached of ``template`` for another model than the one that matched; None if nothing is."""
        for cached in self._templates.get(self.key_of(incoming.message), ()):
            if cached.model is model and cached.template is template:
                return cached
        return None

    def set_field(self, incoming: IncomingRequest[Request], error: InvalidInputError) -> None:
        """Set in ``error`` the path to the field of ``incoming`` that it is about, if there is one."""
        if error.at is not None and not error.field:
            request = incoming.parsed or self._parsed_again(incoming)
            error.field = self.codec.field_of(request, error.at)

    def cache(self, incoming: IncomingRequest[Request]) -> None:
        """Cache the template that was learned from a request, if any."""
        learned = incoming.learned
        if learned is None:
            return
        key = self.key_of(incoming.message)
        known = self._templates.get(key)
        if known is not None:
            # Versions of a model that share its requests have the same templates.
            others = [
                other
                for other in known
                if other.template != learned.template
                or (other.model is not learned.model and other.model.state is ModelState.READY)
            ]
            self._templates[key] = [learned, *others][:_MAX_TEMPLATES_PER_KEY]
            return
        if len(self._templates) >= _MAX_KEYS:
            # Clients that send this many kinds gain little from the cache; the others are cached again at once.
            self._templates.clear()
        self._templates[key] = [learned]


class RequestDecoder(CachingDecoder[bytes, WireRequest]):
    """Decodes requests that are protobuf messages."""

    def __init__(self, codec: WireCodec[WireRequest]) -> None:
        super().__init__(codec)
        self._wire = codec

    def match(self, message: bytes) -> IncomingRequest[WireRequest] | None:
        """Return a request that matches a cached template; None for any other."""
        for cached in self._templates.get(len(message), ()):
            template = cached.template
            for part, position in template.fixed:
                if not message.startswith(part, position):
                    break
            else:
                request_id = ""
                if template.request_id is not None:
                    start, end = template.request_id
                    try:
                        request_id = message[start:end].decode()
                    except UnicodeDecodeError:
                        continue
                return IncomingRequest(message, message, cached.name, cached.version, request_id, cached, cached.form)
        return None

    def outline(self, message: bytes) -> Outline[WireRequest] | None:
        """Parse ``message`` without the contents of its tensors."""
        content = self._wire.scanner.outline(message)
        if content is None:
            return None
        try:
            request = parse(self._wire.request_type, content)
        except InvalidInputError:
            return None
        return Outline(request, *self.codec.header(request))

    def parse(self, message: bytes) -> IncomingRequest[WireRequest]:
        """Scan and parse a request that matches no cached template. Raises `InvalidInputError`."""
        codec = self._wire
        template = codec.scanner.scan(message)
        request = parse(codec.request_type, message)
        form = codec.form(request)
        return IncomingRequest(message, message, *codec.header(request), form=form, parsed=request, template=template)

    def key_of(self, message: bytes) -> int:
        """Return the length: messages of a template differ only in the bytes of its parts."""
        return len(message)


def _cacheable(
    incoming: IncomingRequest[Request],
    model: ModelVersion,
    signature: ModelSignature,
    inputs: Tensors,
    params: RequestParams,
    max_bytes: int,
) -> CachedTemplate | None:
    """Return the template if every other request that matches it is valid in the same way, whatever its numbers."""
    # A request that matched the template of another version is like those that it was learned from.
    template = incoming.template if incoming.cached is None else incoming.cached.template
    if template is None or len(template.raw) != len(inputs):
        return None
    fixed_bytes = len(incoming.body)
    tensors: list[_TensorView] = []
    for (name, array), (start, end) in zip(inputs.items(), template.raw, strict=True):
        if end - start != array.nbytes or not _is_fixed(signature.input(name), signature):
            return None
        fixed_bytes -= end - start
        tensors.append(_TensorView(name, array.dtype, array.shape, array.size, start))
    if template.request_id is not None:
        fixed_bytes -= template.request_id[1] - template.request_id[0]
    if fixed_bytes > max_bytes:
        return None
    return CachedTemplate(template, incoming.name, incoming.version, model, tuple(tensors), params, incoming.form)


def _is_fixed(spec: TensorSpec, signature: ModelSignature) -> bool:
    """Return whether the size of an input is all there is to validate, and a batch does not share it."""
    shared = signature.batchable and spec.batch_axis is None
    return not shared and spec.datatype.itemsize_bytes > 0 and spec.datatype.name != "BOOL"

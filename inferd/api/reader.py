"""From the bytes of a request to what the queue takes: the whole way the first time, a short one ever after.

What parsing and checking find out depends on a request's frame (see `request_scan`) and on the model, but not on its
numbers, as long as all of its tensors are raw and of fixed size and none is shared by a batch. So it is kept by frame,
and a request of a known frame costs no parsing, no checks, and one view of the message for each tensor.
"""

from dataclasses import dataclass
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from inferd.api.codec import Codec, Request
from inferd.api.request_scan import Frame
from inferd.api.submission import Terms, make_request, terms_of
from inferd.batching.request import InferenceRequest, Reply
from inferd.errors import InvalidInputError
from inferd.models.version import ModelVersion
from inferd.runtime.signature import ModelSignature, Tensors

#: Message lengths of which frames are kept, frames that are kept of each, and how large one may be: together they bound
#: what callers can make the server keep, and how long a message is compared with what is known.
_MAX_LENGTHS = 256
_MAX_FRAMES_OF_LENGTH = 4
_MAX_FRAME_BYTES = 1024

#: Reading a message of an unknown frame up to this size takes a few milliseconds at worst, whatever it holds.
LARGE_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class _Tensor:
    """What is always the same of one input."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    elements: int
    start: int


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a frame: the names it asks for a model by, and what its requests come to for ``model``."""

    frame: Frame
    name: str
    version: str
    model: ModelVersion
    tensors: tuple[_Tensor, ...]
    terms: Terms

    def is_of(self, content: bytes) -> bool:
        """Whether ``content``, which is as long as the messages of the frame, is one of them."""
        for part, position in self.frame.fixed:  # noqa: SIM110  (a generator costs as much as all the comparisons)
            if not content.startswith(part, position):
                return False
        return True

    def request_id(self, content: bytes) -> str | None:
        """Return the caller's id, or None if it is no text."""
        bounds = self.frame.request_id
        return "" if bounds is None else _text(content[bounds[0] : bounds[1]])

    def inputs(self, content: bytes) -> Tensors:
        """Return views of the tensors in ``content``."""
        inputs: dict[str, NDArray[np.generic]] = {}
        for tensor in self.tensors:
            flat = np.frombuffer(content, tensor.dtype, tensor.elements, tensor.start)
            inputs[tensor.name] = flat.reshape(tensor.shape)
        return inputs


class Incoming(Generic[Request]):
    """A request whose model is still to be found.

    ``name`` and ``version`` are the model's as they were asked for. ``wants_lists`` if the answer is to have typed
    lists. ``known`` is what is known of its frame, ``parsed`` is None as long as that may do. ``frame`` is what the
    scan has found, and ``learned`` what has become of it: something to `RequestReader.keep`.
    """

    __slots__ = ("content", "frame", "known", "learned", "name", "parsed", "request_id", "version", "wants_lists")

    def __init__(
        self,
        content: bytes,
        known: Known | None,
        frame: Frame | None,
        parsed: Request | None,
        name: str,
        version: str,
        request_id: str,
        wants_lists: bool,
    ) -> None:
        self.content = content
        self.known = known
        self.frame = frame
        self.learned: Known | None = None
        self.parsed = parsed
        self.name = name
        self.version = version
        self.request_id = request_id
        self.wants_lists = wants_lists


class RequestReader(Generic[Request]):
    """Reads the requests of one protocol. ``known`` and ``keep`` are for the poll thread, the rest for any."""

    def __init__(self, codec: Codec[Request]) -> None:
        self.codec = codec
        self._known: dict[int, list[Known]] = {}

    @property
    def known_frames(self) -> int:
        """How many frames are kept."""
        return sum(map(len, self._known.values()))

    def known(self, content: bytes) -> Incoming[Request] | None:
        """Return a request of a known frame, which takes next to no work; None for any other."""
        for known in self._known.get(len(content), ()):
            if known.is_of(content) and (request_id := known.request_id(content)) is not None:
                return Incoming(content, known, None, None, known.name, known.version, request_id, False)
        return None

    def read(self, content: bytes) -> Incoming[Request]:
        """Say which model a request of an unknown frame asks for. Raises `InvalidInputError`.

        Of a message of more than `LARGE_BYTES` this is not for the poll thread, and neither is what follows of it.
        """
        codec = self.codec
        frame = codec.scan(content)
        request = codec.parse(content)
        name, version = codec.target(request)
        return Incoming(
            content, None, frame, request, name, version, codec.request_id(request), codec.wants_lists(request)
        )

    def request(
        self, incoming: Incoming[Request], model: ModelVersion, reply: Reply, received_at: float, call_deadline: float
    ) -> InferenceRequest:
        """Return what the queue of ``model`` takes. Raises `InvalidInputError`."""
        known = incoming.known
        if known is not None and known.model is model:
            return make_request(known.inputs(incoming.content), known.terms, reply, received_at, call_deadline)
        signature = model.require_signature()
        decoded = self.codec.decode(incoming.parsed or self.codec.parse(incoming.content), signature)
        terms = terms_of(model, decoded)
        incoming.learned = _learned(incoming, model, signature, decoded.inputs, terms)
        return make_request(decoded.inputs, terms, reply, received_at, call_deadline)

    def locate(self, incoming: Incoming[Request], error: InvalidInputError) -> None:
        """Say in ``error`` of ``incoming`` which field it is about, if it knows."""
        if error.at is not None and not error.field:
            request = incoming.parsed or self.codec.parse(incoming.content)
            error.field = self.codec.field_of(request, error.at)

    def keep(self, incoming: Incoming[Request]) -> None:
        """Keep what was learned of a request that was read."""
        known = incoming.learned
        if known is None:
            return
        length = len(incoming.content)
        if length not in self._known and len(self._known) >= _MAX_LENGTHS:
            # Callers with messages of so many lengths gain little from this; the others are known again at once.
            self._known.clear()
        others = [other for other in self._known.get(length, ()) if other.frame != known.frame]
        self._known[length] = [known, *others][:_MAX_FRAMES_OF_LENGTH]


def _learned(
    incoming: Incoming[Request], model: ModelVersion, signature: ModelSignature, inputs: Tensors, terms: Terms
) -> Known | None:
    """Return the frame, if another request of it fits the model just as this one does, whatever its numbers."""
    frame = incoming.frame
    if frame is None or not _sizes_are_fixed(inputs, signature):
        return None
    if sum(len(part) for part, _ in frame.fixed) > _MAX_FRAME_BYTES:
        return None
    if [end - start for start, end in frame.raw] != [array.nbytes for array in inputs.values()]:
        return None
    tensors = tuple(
        _Tensor(name, array.dtype, array.shape, array.size, start)
        for (name, array), (start, _) in zip(inputs.items(), frame.raw, strict=True)
    )
    return Known(frame, incoming.name, incoming.version, model, tensors, terms)


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _sizes_are_fixed(inputs: Tensors, signature: ModelSignature) -> bool:
    """Whether a tensor's size says all that has to be checked of its elements, and none is shared by a batch."""
    specs = [signature.input(name) for name in inputs]
    fixed = all(spec.datatype.itemsize_bytes and spec.datatype.name != "BOOL" for spec in specs)
    return fixed and not (signature.batchable and any(spec.batch_axis is None for spec in specs))

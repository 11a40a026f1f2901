"""From the bytes of a request to what the queue takes: the whole way the first time, a short one ever after.

What parsing and checking find out depends on a request's frame (see `frames`) and on the model, but not on its numbers,
as long as all of its tensors are raw and of fixed size and none is shared by a batch. So it is kept by frame, and a
request of a known frame costs no parsing, no checks, and one view of the message for each tensor.
"""

from dataclasses import dataclass
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from inferd.api.codec import Codec, Request, Response
from inferd.api.frames import Frame
from inferd.api.submission import Terms, make_request, terms_of
from inferd.batching.request import InferenceRequest, Reply
from inferd.models.version import ModelVersion
from inferd.runtime.signature import ModelSignature, Tensors

#: Frames that are kept at most, and how large one may be: together they bound what callers can make the server keep.
_MAX_FRAMES = 1024
_MAX_FRAME_BYTES = 1024


@dataclass(frozen=True, slots=True)
class _Tensor:
    """What is always the same of one input."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    elements: int
    nbytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Known:
    """What is known of a frame: the names it asks for a model by, and what its requests come to for ``model``."""

    name: str
    version: str
    model: ModelVersion
    tensors: tuple[_Tensor, ...]
    terms: Terms

    def inputs(self, message: bytes, frame: Frame) -> Tensors | None:
        """Return views of the tensors in ``message``, or None if their sizes are not those of before."""
        inputs: dict[str, NDArray[np.generic]] = {}
        for tensor, (start, end) in zip(self.tensors, frame.raw, strict=True):
            if end - start != tensor.nbytes:
                return None
            flat = np.frombuffer(message, tensor.dtype, tensor.elements, start)
            inputs[tensor.name] = flat.reshape(tensor.shape)
        return inputs


@dataclass(kw_only=True, slots=True)
class Incoming(Generic[Request]):
    """A request whose model is still to be found.

    ``name`` and ``version`` are the model's as they were asked for. ``wants_lists`` if the answer is to have typed
    lists. ``parsed`` is None as long as the short way may do.
    """

    content: bytes
    frame: Frame | None
    known: _Known | None = None
    parsed: Request | None = None
    name: str
    version: str
    request_id: str
    wants_lists: bool = False


class RequestReader(Generic[Request, Response]):
    """Reads the requests of one protocol. Used on the poll thread only."""

    def __init__(self, codec: Codec[Request, Response]) -> None:
        self.codec = codec
        self._known: dict[tuple[bytes | None, ...], _Known] = {}

    @property
    def known_frames(self) -> int:
        """How many frames are kept."""
        return len(self._known)

    def read(self, content: bytes) -> Incoming[Request]:
        """Say which model the request asks for. Raises `InvalidInputError`."""
        frame = self.codec.skimmer.skim(content)
        if frame is not None:
            known = self._known.get(frame.key)
            request_id = _text(frame.request_id)
            if known is not None and request_id is not None:
                return Incoming(
                    content=content,
                    frame=frame,
                    known=known,
                    name=known.name,
                    version=known.version,
                    request_id=request_id,
                )
        request = self.codec.parse(content)
        name, version = self.codec.target(request)
        return Incoming(
            content=content,
            frame=frame,
            parsed=request,
            name=name,
            version=version,
            request_id=self.codec.request_id(request),
            wants_lists=self.codec.wants_lists(request),
        )

    def request(
        self,
        incoming: Incoming[Request],
        model: ModelVersion,
        *,
        reply: Reply,
        received_at: float,
        call_deadline: float,
    ) -> InferenceRequest:
        """Return what the queue of ``model`` takes. Raises `InvalidInputError`."""
        inputs, terms = self._inputs_and_terms(incoming, model)
        return make_request(model, inputs, terms, reply=reply, received_at=received_at, call_deadline=call_deadline)

    def _inputs_and_terms(self, incoming: Incoming[Request], model: ModelVersion) -> tuple[Tensors, Terms]:
        known = incoming.known
        if known is not None and known.model is model:
            assert incoming.frame is not None, "what is known is known by its frame"
            inputs = known.inputs(incoming.content, incoming.frame)
            if inputs is not None:
                return inputs, known.terms
        signature = model.require_signature()
        decoded = self.codec.decode(incoming.parsed or self.codec.parse(incoming.content), signature)
        terms = terms_of(model, decoded)
        if incoming.frame is not None and _depends_on_frame_only(incoming.frame, decoded.inputs, signature):
            self._keep(incoming, model, decoded.inputs, terms)
        return decoded.inputs, terms

    def _keep(self, incoming: Incoming[Request], model: ModelVersion, inputs: Tensors, terms: Terms) -> None:
        assert incoming.frame is not None
        if len(self._known) >= _MAX_FRAMES:
            # Callers with so many different frames gain nothing from them; the others are known again at once.
            self._known.clear()
        self._known[incoming.frame.key] = _Known(
            name=incoming.name,
            version=incoming.version,
            model=model,
            tensors=tuple(
                _Tensor(name, array.dtype, array.shape, array.size, array.nbytes) for name, array in inputs.items()
            ),
            terms=terms,
        )


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _depends_on_frame_only(frame: Frame, inputs: Tensors, signature: ModelSignature) -> bool:
    """Whether another request of this frame fits the model just as this one does, whatever its numbers."""
    if sum(len(part) for part in frame.key if part) > _MAX_FRAME_BYTES:
        return False
    if [end - start for start, end in frame.raw] != [array.nbytes for array in inputs.values()]:
        return False
    specs = [signature.input(name) for name in inputs]
    fixed = all(spec.datatype.itemsize_bytes and spec.datatype.name != "BOOL" for spec in specs)
    return fixed and not (signature.batchable and any(spec.batch_axis is None for spec in specs))

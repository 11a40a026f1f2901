"""A language model whose engine does what the test says, and a call that asks it."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np

from inferd.api.generation.params import GenerationParams
from inferd.api.handler_resources import HandlerResources
from inferd.api.open_streams import OpenStreams
from inferd.api.status import StatusTable
from inferd.api.wire_scanner import MessageLimits
from inferd.config.settings import ModelSettings
from inferd.errors import InvalidInputError, ServingError
from inferd.generation.request import Delta, FinishReason, GenerationRequest, Usage
from inferd.models.loaded import GenerationLimits
from inferd.models.states import ModelState
from inferd.runtime.genai_config import GenaiConfig
from tests.unit.api.fakes import FakeCall, FakeLargeMessages, FakeRegistry, Soon

CONTEXT = 64
VOCABULARY = 256
END = 3

Message = dict[str, str]


class ByteText:
    """A tokenizer whose tokens are the bytes of a text."""

    has_chat_template = True

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int64)

    def render(self, messages: Sequence[Message]) -> str:
        if messages[0]["role"] == "nobody":
            raise InvalidInputError('the chat template knows no role "nobody"')
        return "".join(f"<{message['role']}>{message['content']}" for message in messages)

    def encode_rendered(self, text: str) -> np.ndarray:
        return self.encode(text)

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id])


class FakeEngine:
    """Keeps requests until the test generates for them."""

    def __init__(self) -> None:
        self.max_request_tokens = CONTEXT
        self.submitted: list[GenerationRequest] = []
        self.cancelled: list[GenerationRequest] = []
        self.rejection: ServingError | None = None

    def submit(self, request: GenerationRequest) -> None:
        self.submitted.append(request)
        if self.rejection is not None:
            request.receiver.on_error(self.rejection)

    def cancel(self, request: GenerationRequest) -> None:
        self.cancelled.append(request)

    def generate(self, text: str, position: int = -1) -> None:
        """Generate the tokens of ``text``."""
        self.submitted[position].receiver.on_delta(Delta(token_ids=list(text.encode()), text=text))

    def keep(self, tokens: list[int], position: int = -1) -> None:
        """Generate tokens that are no text yet."""
        self.submitted[position].receiver.on_delta(Delta(token_ids=tokens))

    def finish(self, text: str = "", position: int = -1, reason: FinishReason = FinishReason.STOP) -> None:
        """Generate the last tokens."""
        request = self.submitted[position]
        usage = Usage(prompt_tokens=len(request.prompt), generated_tokens=7, queue_s=0.25, first_token_s=0.5)
        delta = Delta(token_ids=list(text.encode()), text=text, finish_reason=reason, usage=usage)
        request.receiver.on_delta(delta)

    def fail(self, error: ServingError, position: int = -1) -> None:
        self.submitted[position].receiver.on_error(error)


class FakeLanguageModel:
    """A version of a language model."""

    name, version = "story", "3"
    batcher = None
    state = ModelState.READY
    is_loaded = True

    def __init__(self, *, has_text: bool = True, scores_prompts: bool = True, **defaults: object) -> None:
        self.settings = ModelSettings()
        self.generator = FakeEngine()
        self.text = ByteText() if has_text else None
        config = GenaiConfig(**{"end_token_ids": (END,), **defaults})
        limits = GenerationLimits(
            context_length=CONTEXT, vocabulary_size=VOCABULARY, scores_prompts=scores_prompts, defaults=config
        )
        self.language = SimpleNamespace(generator=self.generator, text=self.text, limits=limits)


class Waits:
    """Lets the test load a cold model."""

    def __init__(self) -> None:
        self.waiting: list[dict[str, Callable[..., None]]] = []
        self.withdrawn = 0

    def add(
        self, _call: object, _error: object, waited: object, **callbacks: Callable[..., None]
    ) -> Callable[[], None]:
        self.waiting.append({"waited": lambda: waited, **callbacks})

        def withdraw() -> None:
            self.withdrawn += 1

        return withdraw


class Bench:
    """A server with one language model, and a caller."""

    def __init__(self, model: FakeLanguageModel | None = None, **limits: int) -> None:
        self.model = model or FakeLanguageModel()
        self.engine = self.model.generator
        self.registry = FakeRegistry(self.model)
        self.large = FakeLargeMessages()
        self.soon = Soon()
        self.waits = Waits()
        self.resources = HandlerResources(
            registry=self.registry,
            statuses=StatusTable(),
            call_soon=self.soon,
            streams=OpenStreams(),
            waits=self.waits,
            large_messages=self.large,
            limits=MessageLimits(**limits),
        )
        self.call = StreamingCall()


class StreamingCall(FakeCall):
    """A stream whose caller reads, or does not."""

    method = "/inferd.v1.GenerationService/Generate"

    def __init__(self, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(metadata)
        self.reads_answers = True
        self.on_sent: Callable[[], None] | None = None
        self.unread: list[bytes] = []

    @property
    def waiting_messages(self) -> int:
        return len(self.unread)

    def send(self, message: bytes) -> bool:
        if not self.reads_answers:
            self.unread.append(message)
            return True
        return super().send(message)

    def catch_up(self) -> None:
        """Read everything, one message after another."""
        while self.unread:
            self.sent.append(self.unread.pop(0))
            if self.on_sent is not None:
                self.on_sent()
        self.reads_answers = True


class Recorder:
    """A receiver that keeps what it gets."""

    def __init__(self) -> None:
        self.started: list[tuple[str, GenerationRequest]] = []
        self.deltas: list[Delta] = []
        self.errors: list[ServingError] = []

    def on_started(self, version: FakeLanguageModel, request: GenerationRequest) -> None:
        self.started.append((version.name, request))

    def on_delta(self, delta: Delta) -> None:
        self.deltas.append(delta)

    def on_error(self, error: ServingError) -> None:
        self.errors.append(error)

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    @property
    def error(self) -> ServingError:
        (error,) = self.errors
        return error


def params(prompt: object = "once", **fields: object) -> GenerationParams:
    """Return a request for the language model."""
    return GenerationParams(prompt=prompt, **{"model": "story", **fields})

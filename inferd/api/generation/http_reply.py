"""Answers over HTTP to generation calls: as one body, or as server-sent events while they are generated."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

from inferd.api.generation.delta_sender import append_delta
from inferd.api.generation.generations import Generations
from inferd.api.generation.params import GenerationParams
from inferd.api.handler_resources import HandlerResources
from inferd.api.status import abort
from inferd.call_context import request_id_of
from inferd.errors import ServingError
from inferd.generation.request import Delta, GenerationRequest, Usage
from inferd.http.messages import HttpBody, HttpUnaryCall
from inferd.models.version import ModelVersion

Json = dict[str, Any]

#: Prompts of a call that are tokenized in one round of the poll thread, which takes a few milliseconds.
_PROMPTS_PER_ROUND = 4


class ChoiceWriter(ABC):
    """Writes one choice of an answer; with ``includes_tokens`` its pieces have token ids too."""

    includes_tokens = False

    @abstractmethod
    def prefix(self, version: ModelVersion, request: GenerationRequest) -> Json | None:
        """Return the content before the generated output, or None; called once, before the other methods."""

    @abstractmethod
    def piece(self, delta: Delta) -> Json:
        """Return the choice with ``delta``, the output since the last piece."""

    @abstractmethod
    def whole(self, delta: Delta) -> Json:
        """Return the choice with ``delta``, all of its output."""


class AnswerWriter(Protocol):
    """Writes the answer to one call, in the form of its API."""

    def choice(self, index: int) -> ChoiceWriter:
        """Return the writer of the choice with ``index``."""
        ...

    def whole(self, choices: Sequence[Json], usages: Sequence[Usage]) -> HttpBody:
        """Return the body with all ``choices``."""
        ...

    def event(self, choice: Json) -> bytes:
        """Return the event with a piece of one choice."""
        ...

    def end(self, usages: Sequence[Usage]) -> bytes:
        """Return the events after the last piece; may be empty."""
        ...

    def error(self, body: bytes) -> bytes:
        """Return the event of an error, which has ``body`` in answers that are not streamed."""
        ...


class Choice:
    """One generation of a call: a `GenerationReceiver` that keeps its output until the reply sends it."""

    __slots__ = ("_reply", "unsent", "usage", "writer")

    def __init__(self, reply: "Reply", writer: ChoiceWriter) -> None:
        self._reply = reply
        self.writer = writer
        #: Output that has not been sent.
        self.unsent: Delta | None = None
        #: None until the end.
        self.usage: Usage | None = None

    def on_started(self, version: ModelVersion, request: GenerationRequest) -> None:
        """See `GenerationReceiver.on_started`."""
        if self._reply.is_open():
            self._reply.begin_choice(self.writer.prefix(version, request))

    def on_delta(self, delta: Delta) -> None:
        """See `Receiver.on_delta`."""
        if not self._reply.is_open():
            return
        if self.unsent is None:
            self.unsent = delta
        else:
            append_delta(self.unsent, delta)
        self.usage = delta.usage
        self._reply.update(self, has_ended=delta.finish_reason is not None)

    def on_error(self, error: ServingError) -> None:
        """See `Receiver.on_error`."""
        self._reply.fail(error)

    @property
    def has_output(self) -> bool:
        """True if there is output for an event: tokens without complete text are none, unless their ids are sent."""
        unsent = self.unsent
        if unsent is None:
            return False
        return self.writer.includes_tokens or bool(unsent.text) or unsent.finish_reason is not None

    def take(self) -> Delta | None:
        """Remove and return the unsent output."""
        unsent, self.unsent = self.unsent, None
        return unsent


class Reply(ABC):
    """The answer to one call, with one or more generations.

    Invariants: the call gets one end, with which the remaining generations are cancelled. On the poll thread, which
    serves other calls between the prompts of one with many.
    """

    def __init__(self, call: HttpUnaryCall, writer: AnswerWriter, resources: HandlerResources) -> None:
        self._call = call
        self._writer = writer
        self._resources = resources
        self._choices: list[Choice] = []
        self._cancels: list[Callable[[], None]] = []
        self._unfinished = 0

    def begin(self, generations: Generations, params: Sequence[GenerationParams]) -> None:
        """Submit a request for each of ``params``."""
        self._choices = [Choice(self, self._writer.choice(index)) for index in range(len(params))]
        self._unfinished = len(params)
        self._call.on_terminated(self.cancel)
        self._begin_some(generations, zip(params, self._choices, strict=True))

    def _begin_some(self, generations: Generations, left: Iterator[tuple[GenerationParams, Choice]]) -> None:
        for begun, (params, choice) in enumerate(left, 1):
            if self._call.ended_at != math.inf:
                return
            self._cancels.append(generations.begin(self._call, params, choice))
            if begun == _PROMPTS_PER_ROUND:
                self._resources.call_soon(partial(self._begin_some, generations, left))
                return

    def cancel(self) -> None:
        """Cancel the generations in progress."""
        cancels, self._cancels = self._cancels, []
        for cancel in cancels:
            cancel()

    def is_open(self) -> bool:
        """Return whether the call is open; if another thread has ended it, cancel the generations."""
        if self._call.ended_at == math.inf:
            return True
        self.cancel()
        return False

    def fail(self, error: ServingError) -> None:
        """End the call with ``error``."""
        abort(self._call, self._resources.statuses, error)
        self.cancel()

    def update(self, choice: Choice, *, has_ended: bool) -> None:
        """Send or keep new output of a choice."""
        self._unfinished -= has_ended
        if self._unfinished:
            self._continue_choice(choice)
        else:
            self._finish([each.usage for each in self._choices if each.usage is not None])

    @abstractmethod
    def begin_choice(self, prefix: Json | None) -> None:
        """Begin a choice with the content before its output, if there is some."""

    @abstractmethod
    def _continue_choice(self, choice: Choice) -> None:
        """Send or keep output while at least one choice is unfinished."""

    @abstractmethod
    def _finish(self, usages: Sequence[Usage]) -> None:
        """End the answer."""


class WholeReply(Reply):
    """An answer that is sent when all its choices are complete."""

    def begin_choice(self, prefix: Json | None) -> None:
        """See `Reply.begin_choice`."""

    def _continue_choice(self, choice: Choice) -> None:
        pass

    def _finish(self, usages: Sequence[Usage]) -> None:
        choices = [choice.writer.whole(output) for choice in self._choices if (output := choice.take()) is not None]
        self._call.reply(self._writer.whole(choices, usages))


class StreamedReply(Reply):
    """An answer in server-sent events; it begins with the first output, so that earlier errors have their own status.

    While the caller does not read, the output of each choice is joined, so at most the rest of the answer is kept.
    """

    _has_begun = False

    def begin_choice(self, prefix: Json | None) -> None:
        """See `Reply.begin_choice`."""
        call = self._call
        if not self._has_begun:
            self._has_begun = True
            headers = (*EVENT_HEADERS, ("X-Request-Id", request_id_of(call.context)))
            call.begin_stream(headers, self._writer.error)
        if prefix is not None:
            call.send(self._writer.event(prefix))

    def _continue_choice(self, choice: Choice) -> None:
        if not choice.has_output:
            return
        if self._call.is_backed_up:
            self._call.when_read(self._send_unsent)
        else:
            self._send(choice)

    def _send(self, choice: Choice) -> None:
        output = choice.take()
        if output is not None:
            self._call.send(self._writer.event(choice.writer.piece(output)))

    def _send_unsent(self) -> None:
        for choice in self._choices:
            if choice.has_output:
                self._send(choice)

    def _finish(self, usages: Sequence[Usage]) -> None:
        for choice in self._choices:
            self._send(choice)
        self._call.finish_stream(self._writer.end(usages))


#: The last two keep proxies such as nginx from buffering events.
EVENT_HEADERS = (
    ("Content-Type", "text/event-stream; charset=utf-8"),
    ("Cache-Control", "no-cache"),
    ("X-Accel-Buffering", "no"),
)

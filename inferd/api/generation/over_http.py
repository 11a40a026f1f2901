"""Answers over HTTP to calls that generate: whole, or as events while they are generated."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

from inferd.api.generation.generations import Generations
from inferd.api.generation.params import GenerationParams
from inferd.api.generation.sending import join
from inferd.api.handler_resources import HandlerResources
from inferd.api.status import abort
from inferd.call_context import request_id_of
from inferd.errors import ServingError
from inferd.generation.request import Delta, GenerationRequest, Usage
from inferd.http.messages import HttpBody, HttpUnaryCall
from inferd.models.version import ModelVersion

Json = dict[str, Any]

#: Prompts of a call whose tokens are made in one step: a few milliseconds.
_AT_ONCE = 4


class ChoiceForm(ABC):
    """Writes one of the texts of an answer; with ``includes_tokens`` its pieces have the token ids as well."""

    includes_tokens = False

    @abstractmethod
    def first(self, version: ModelVersion, request: GenerationRequest) -> Json | None:
        """Return what comes before what is generated, if there is something; called once, before all others."""

    @abstractmethod
    def piece(self, delta: Delta) -> Json:
        """Return what was generated since the last piece."""

    @abstractmethod
    def whole(self, delta: Delta) -> Json:
        """Return all of it."""


class AnswerForm(Protocol):
    """Writes the answer to one call."""

    def choice(self, index: int) -> ChoiceForm:
        """Return what writes a text of the answer."""
        ...

    def whole(self, choices: Sequence[Json], usages: Sequence[Usage]) -> HttpBody:
        """Return the answer with all its texts."""
        ...

    def event(self, choice: Json) -> bytes:
        """Return the event with a piece of one text."""
        ...

    def last(self, usages: Sequence[Usage]) -> bytes:
        """Return what comes behind the last event; it may be empty."""
        ...

    def error(self, body: bytes) -> bytes:
        """Return the event of an error, whose ``body`` is that of an answer."""
        ...


class Choice:
    """One generation of a call: a `GenerationReceiver` that keeps the output until the reply sends it."""

    __slots__ = ("_reply", "form", "kept", "usage")

    def __init__(self, reply: "Reply", form: ChoiceForm) -> None:
        self._reply = reply
        self.form = form
        #: Output that has not been sent.
        self.kept: Delta | None = None
        #: Known at the end.
        self.usage: Usage | None = None

    def on_started(self, version: ModelVersion, request: GenerationRequest) -> None:
        """See `GenerationReceiver.on_started`."""
        if self._reply.is_open():
            self._reply.begin_choice(self.form.first(version, request))

    def on_delta(self, delta: Delta) -> None:
        """See `Receiver.on_delta`."""
        if not self._reply.is_open():
            return
        if self.kept is None:
            self.kept = delta
        else:
            join(self.kept, delta)
        self.usage = delta.usage
        self._reply.update(self, has_ended=delta.finish_reason is not None)

    def on_error(self, error: ServingError) -> None:
        """See `Receiver.on_error`."""
        self._reply.fail(error)

    @property
    def has_output(self) -> bool:
        """Whether what is kept is worth an event: it may be a part of a character, or of what may be a stop text."""
        kept = self.kept
        if kept is None:
            return False
        return self.form.includes_tokens or bool(kept.text) or kept.finish_reason is not None

    def take(self) -> Delta | None:
        """Return what is kept, and keep it no longer."""
        kept, self.kept = self.kept, None
        return kept


class Reply(ABC):
    """The answer to one call, with one or more generations.

    Invariants: the call gets one end; the generations that are left are cancelled with it. On the poll thread, which
    serves others between the prompts of many.
    """

    def __init__(self, call: HttpUnaryCall, form: AnswerForm, resources: HandlerResources) -> None:
        self._call = call
        self._form = form
        self._resources = resources
        self._choices: list[Choice] = []
        self._cancels: list[Callable[[], None]] = []
        self._running = 0

    def begin(self, generations: Generations, params: Sequence[GenerationParams]) -> None:
        """Generate for each of ``params``."""
        self._choices = [Choice(self, self._form.choice(index)) for index in range(len(params))]
        self._running = len(params)
        self._call.on_terminated(self.cancel)
        self._begin_some(generations, zip(params, self._choices, strict=True))

    def _begin_some(self, generations: Generations, left: Iterator[tuple[GenerationParams, Choice]]) -> None:
        for begun, (params, choice) in enumerate(left, 1):
            if self._call.ended_at != math.inf:
                return
            self._cancels.append(generations.begin(self._call, params, choice))
            if begun == _AT_ONCE:
                self._resources.call_soon(partial(self._begin_some, generations, left))
                return

    def cancel(self) -> None:
        """Cancel the generations in progress."""
        cancels, self._cancels = self._cancels, []
        for cancel in cancels:
            cancel()

    def is_open(self) -> bool:
        """Whether the call is open; if another thread has ended it, the generations are cancelled here."""
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
        self._running -= has_ended
        if self._running:
            self._continue_choice(choice)
        else:
            self._finish([each.usage for each in self._choices if each.usage is not None])

    @abstractmethod
    def begin_choice(self, first: Json | None) -> None:
        """Begin a choice, with the content before its output, if any."""

    @abstractmethod
    def _continue_choice(self, choice: Choice) -> None:
        """Send or keep output of a choice that continues, or that ends before others."""

    @abstractmethod
    def _finish(self, usages: Sequence[Usage]) -> None:
        """End the answer."""


class WholeReply(Reply):
    """An answer that is sent when all of it is there."""

    def begin_choice(self, first: Json | None) -> None:
        """See `Reply.begin_choice`."""

    def _continue_choice(self, choice: Choice) -> None:
        pass

    def _finish(self, usages: Sequence[Usage]) -> None:
        texts = [choice.form.whole(kept) for choice in self._choices if (kept := choice.take()) is not None]
        self._call.reply(self._form.whole(texts, usages))


class StreamedReply(Reply):
    """An answer in server-sent events; it begins with the first text, so that earlier errors have their own status.

    While the caller does not read, what is generated is put together: at most the rest of the answer is kept.
    """

    _has_begun = False

    def begin_choice(self, first: Json | None) -> None:
        """See `Reply.begin_choice`."""
        call = self._call
        if not self._has_begun:
            self._has_begun = True
            headers = (*_EVENT_HEADERS, ("X-Request-Id", request_id_of(call.context)))
            call.begin_stream(headers, self._form.error)
        if first is not None:
            call.send(self._form.event(first))

    def _continue_choice(self, choice: Choice) -> None:
        if not choice.has_output:
            return
        if self._call.is_backed_up:
            self._call.when_read(self._send_kept)
        else:
            self._send(choice)

    def _send(self, choice: Choice) -> None:
        kept = choice.take()
        if kept is not None:
            self._call.send(self._form.event(choice.form.piece(kept)))

    def _send_kept(self) -> None:
        for choice in self._choices:
            if choice.has_output:
                self._send(choice)

    def _finish(self, usages: Sequence[Usage]) -> None:
        for choice in self._choices:
            self._send(choice)
        self._call.finish_stream(self._form.last(usages))


#: Proxies such as nginx would keep events to send them together.
_EVENT_HEADERS = (
    ("Content-Type", "text/event-stream; charset=utf-8"),
    ("Cache-Control", "no-cache"),
    ("X-Accel-Buffering", "no"),
)

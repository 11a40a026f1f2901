"""The service of OpenAI's API: the handlers of its operations."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from inferd.api.admission import ModelView
from inferd.api.generation.bodies import MAX_BODY_BYTES, BodyReader
from inferd.api.generation.generations import Generations
from inferd.api.generation.http_reply import StreamedReply, WholeReply
from inferd.api.handler_resources import HandlerResources
from inferd.api.openai import routes
from inferd.api.openai.answers import ChatAnswer, CompletionAnswer, OpenAiAnswer
from inferd.api.openai.errors import openai_form
from inferd.api.openai.models import OpenAiModels
from inferd.api.openai.requests import Reader, TextRequest, read_chat, read_completion
from inferd.api.unary import query_answerer
from inferd.call_context import request_id_of
from inferd.http.messages import HttpBody, HttpHandler, HttpMessage, HttpUnaryCall, Operation

_MAX_QUERY_BYTES = 4096

Query = Callable[[HttpMessage, ModelView], HttpBody]


class OpenAiService:
    """Makes the handlers of all operations."""

    def __init__(self, resources: HandlerResources, generations: Generations) -> None:
        self._resources = resources
        self._generations = generations
        self._models = OpenAiModels(resources.registry)
        self._bodies = BodyReader(resources)

    def operations(self, max_body_bytes: int) -> Iterator[tuple[str, Operation]]:
        """Yield each operation with the template of its path; bodies above ``max_body_bytes`` are refused."""
        models = self._models
        handlers: dict[str, tuple[HttpHandler, int]] = {
            routes.MODELS: (self._query(models.list), _MAX_QUERY_BYTES),
            routes.MODEL: (self._query(models.get), _MAX_QUERY_BYTES),
            routes.COMPLETIONS: (self._generation(read_completion, CompletionAnswer), MAX_BODY_BYTES),
            routes.CHAT_COMPLETIONS: (self._generation(read_chat, ChatAnswer), MAX_BODY_BYTES),
        }
        for method, (handler, most) in handlers.items():
            limit = min(most, max_body_bytes)
            operation = Operation(method=method, handler=handler, max_body_bytes=limit, error_form=openai_form)
            yield routes.PATHS[method], operation

    def _query(self, respond: Query) -> HttpHandler:
        resources = self._resources
        return query_answerer(
            respond, resources.registry, resources.statuses, name_field="model", waits=resources.waits
        )

    def _generation(self, read: Reader, form: Callable[[TextRequest, str], OpenAiAnswer]) -> HttpHandler:
        def read_body(content: dict[str, Any]) -> TextRequest:
            return read(content, self._models.split_name)

        def begin(call: HttpUnaryCall, request: TextRequest) -> None:
            kind = StreamedReply if request.stream else WholeReply
            reply = kind(call, form(request, request_id_of(call.context)), self._resources)
            reply.begin(self._generations, request.params)

        def handle(call: HttpUnaryCall, message: HttpMessage) -> None:
            self._bodies.read(call, message, read_body, partial(begin, call))

        return handle

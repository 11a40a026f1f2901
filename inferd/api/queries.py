"""Unary methods that answer from what the server knows, without a model's run."""

from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from inferd.api.access import ModelView
from inferd.api.errors import StatusTable
from inferd.api.parsing import parse
from inferd.api.unary import abort
from inferd.errors import InvalidInputError, ServingError
from inferd.models.registry import ModelRegistry
from inferd.rpc import UnaryCall, callback_unary

Query = TypeVar("Query", bound=Message)


def query_handler(
    query: type[Query], respond: Callable[[Query, ModelView], Message], registry: ModelRegistry, statuses: StatusTable
) -> "grpc.RpcMethodHandler[Any, Any]":
    """Return a handler that answers ``query`` messages by ``respond``, which may raise `ServingError`.

    ``respond`` gets the models of ``registry`` as the caller may see them.
    """
    name_field = "model" if "model" in query.DESCRIPTOR.fields_by_name else "name"

    def handle(call: UnaryCall, message: bytes) -> None:
        view = ModelView(registry, call)
        try:
            try:
                answer = respond(parse(query, message), view)
            finally:
                # Wrong queries too; who is over its quota hears that instead.
                view.count()
        except ServingError as error:
            if isinstance(error, InvalidInputError) and error.at == "model":
                error.field = name_field
            abort(call, statuses, error)
        else:
            call.reply(answer.SerializeToString())

    return callback_unary(handle)

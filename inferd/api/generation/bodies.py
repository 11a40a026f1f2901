"""Read the JSON bodies of generation requests over HTTP; large ones in another thread than the poll thread."""

import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from inferd.api.admission import charge_invalid
from inferd.api.handler_resources import HandlerResources
from inferd.api.json_text import read_object
from inferd.api.request_decoder import LARGE_BYTES
from inferd.api.status import abort
from inferd.call_context import log_fields
from inferd.errors import InferenceFailedError, InvalidInputError, ServingError
from inferd.http.messages import HttpMessage, HttpUnaryCall

_log = logging.getLogger(__name__)

#: Half a million tokens of text, or `_MAX_ELEMENTS` token ids: parsing either holds the interpreter lock for 2 ms.
MAX_BODY_BYTES = 2 * 1024 * 1024
_MAX_ELEMENTS = 65_536

Parsed = TypeVar("Parsed")


class BodyReader:
    """Reads bodies into requests; `read` is called on the poll thread."""

    def __init__(self, resources: HandlerResources) -> None:
        self._resources = resources

    def read(
        self,
        call: HttpUnaryCall,
        message: HttpMessage,
        read: Callable[[dict[str, Any]], Parsed],
        then: Callable[[Parsed], None],
    ) -> None:
        """Call ``then`` on the poll thread with what ``read`` returns for the body, or end ``call`` with its error."""
        try:
            if len(message.body) > LARGE_BYTES:
                self._resources.large_messages.decode(partial(self._read_in_thread, call, message, read, then))
                return
            parsed = read(_content(message))
        except ServingError as error:
            abort(call, self._resources.statuses, charge_invalid(call, error))
        else:
            then(parsed)

    def _read_in_thread(
        self,
        call: HttpUnaryCall,
        message: HttpMessage,
        read: Callable[[dict[str, Any]], Parsed],
        then: Callable[[Parsed], None],
    ) -> None:
        if call.ended_at != math.inf:
            return
        statuses = self._resources.statuses
        try:
            parsed = read(_content(message))
        except ServingError as error:
            abort(call, statuses, charge_invalid(call, error))
        except Exception:  # noqa: BLE001  (the thread must go on, and the call must end)
            _log.exception("could not read a request of %s", call.method, extra=log_fields(call))
            abort(call, statuses, InferenceFailedError())
        else:
            self._resources.call_soon(partial(then, parsed))


def _content(message: HttpMessage) -> dict[str, Any]:
    body = message.body
    elements = body.count(b",")
    if elements > _MAX_ELEMENTS:
        raise InvalidInputError(f"the body: expected at most {_MAX_ELEMENTS} commas, got {elements}")
    return read_object(memoryview(body))

"""Tokenize prompts without generating: the method ``Tokenize``."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic

from inferd.api.admission import charge_invalid, charge_request, find_model
from inferd.api.generation.limits import Limits, limits_of
from inferd.api.generation.params import GenerationParams
from inferd.api.generation.prompt import takes_long, tokens_of
from inferd.api.handler_resources import HandlerResources
from inferd.api.model_waits import Waited
from inferd.call_context import log_fields
from inferd.errors import ColdModelError, InferenceFailedError, InvalidInputError, ServingError
from inferd.generation.request import TokenIds
from inferd.models.version import ModelVersion
from inferd.rpc import Call

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokenized:
    """The tokens of a prompt, and its text: of a chat, what the template made of it; empty for given tokens."""

    version: ModelVersion
    ids: TokenIds
    text: str


class Tokenizations:
    """Tokenizes prompts; called on the poll thread. Each counts as one request in the quota of its caller."""

    def __init__(self, resources: HandlerResources) -> None:
        self._resources = resources

    def begin(
        self,
        call: Call,
        params: GenerationParams,
        respond: Callable[[Tokenized], object],
        fail: Callable[[ServingError], None],
    ) -> None:
        """Call ``respond`` with the tokens of the prompt, or ``fail``, in any thread."""
        self._begin(call, params, respond, fail, Waited(monotonic()))

    def _begin(
        self,
        call: Call,
        params: GenerationParams,
        respond: Callable[[Tokenized], object],
        fail: Callable[[ServingError], None],
        waited: Waited,
    ) -> None:
        try:
            version, _ = find_model(self._resources.registry, call, params.model, params.version)
            limits = limits_of(version)
            charge_request(call, version.name)
            work = partial(self._tokenize, call, params, version, limits, respond, fail)
            if takes_long(params):
                self._resources.large_messages.decode(work)
            else:
                work()
        except ColdModelError as error:
            go_on = partial(self._begin, call, params, respond, fail)
            call.on_terminated(self._resources.waits.add(call, error, waited, go_on=go_on, fail=fail))
        except InvalidInputError as error:
            params.name_field(error)
            fail(charge_invalid(call, error))
        except ServingError as error:
            fail(charge_invalid(call, error))

    def _tokenize(
        self,
        call: Call,
        params: GenerationParams,
        version: ModelVersion,
        limits: Limits,
        respond: Callable[[Tokenized], object],
        fail: Callable[[ServingError], None],
    ) -> None:
        """Answer; in any thread."""
        if call.ended_at != math.inf:
            return
        try:
            tokens, text = tokens_of(params, version, limits)
        except ServingError as error:
            fail(error)
        except Exception:  # noqa: BLE001  (the thread must go on, and the call must end)
            _log.exception("could not tokenize a prompt of %s", call.method, extra=log_fields(call))
            fail(InferenceFailedError())
        else:
            respond(Tokenized(version=version, ids=tokens, text=text))

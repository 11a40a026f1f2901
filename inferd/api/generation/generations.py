"""Requests to generate, from what is wanted to the engine of a version."""

from collections.abc import Callable

from inferd.api.generation.wanted import GenerationReceiver, Wanted
from inferd.api.handler_resources import HandlerResources
from inferd.errors import InferenceFailedError
from inferd.rpc import Call


class Generations:
    """Submits requests of all protocols; on the poll thread, which it never blocks."""

    def __init__(self, resources: HandlerResources) -> None:
        self._resources = resources

    def submit(self, call: Call, wanted: Wanted, receiver: GenerationReceiver) -> None:
        """Generate what is ``wanted``, until the call terminates.

        Every error reaches the receiver, which may happen before this returns.
        """
        call.on_terminated(self.begin(call, wanted, receiver))

    def begin(self, call: Call, wanted: Wanted, receiver: GenerationReceiver) -> Callable[[], None]:
        """Do the same, and return what cancels the request; for streams of many requests."""
        receiver.on_error(InferenceFailedError())
        return lambda: None

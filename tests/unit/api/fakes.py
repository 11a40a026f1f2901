"""Fakes of what the services call, and of their calls."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import numpy as np

from inferd.batching.request import BatchTiming, FailedRunError, InferenceRequest, InferenceResult
from inferd.call_context import CallContext
from inferd.config.settings import ModelSettings
from inferd.dtypes import BY_NAME
from inferd.errors import ColdModelError, ModelNotFoundError, OverloadedError
from inferd.models.states import ModelState
from inferd.rpc.interfaces import Finisher
from inferd.runtime.signature import ModelSignature, TensorSpec
from tests.unit.finishing import Finishing

SIGNATURE = ModelSignature(
    inputs=(TensorSpec(name="x", datatype=BY_NAME["FP32"], shape=("batch", 2), batch_axis=0),),
    outputs=(TensorSpec(name="y", datatype=BY_NAME["FP32"], shape=("batch", 2), batch_axis=0),),
    batchable=True,
)

#: A result that cannot be encoded, as a session would return it if validation had a bug.
UNSENDABLE = InferenceResult(
    {"y": np.array([1j])}, BatchTiming(started_at=0.0, stack_s=0.0, run_s=0.0, rows=1), queue_s=0.0
)


class FakeModel:
    """A model version that keeps requests until the test answers them."""

    batcher = None
    language = None
    name = "fake"
    version = "3"
    settings = ModelSettings()

    def __init__(self) -> None:
        self.submitted: list[InferenceRequest] = []
        self.cancelled: list[InferenceRequest] = []

    def require_signature(self) -> ModelSignature:
        return SIGNATURE

    def submit(self, requests: Sequence[InferenceRequest]) -> None:
        self.submitted.extend(requests)
        for request in requests:
            request.reply.release()

    def cancel(self, request: InferenceRequest) -> None:
        if request.reply.withdraw():
            self.cancelled.append(request)

    def fail(self, position: int) -> None:
        """Fail the run of the request."""
        timing = BatchTiming(started_at=0.0, stack_s=0.0, run_s=0.125, rows=1)
        self.submitted[position].reply.deliver(FailedRunError(timing, queue_s=0.5))

    def answer(self, position: int) -> None:
        """Answer the request with its input."""
        request = self.submitted[position]
        timing = BatchTiming(started_at=0.0, stack_s=0.001, run_s=0.25, rows=7)
        request.reply.deliver(InferenceResult({"y": request.inputs["x"]}, timing, queue_s=0.5))


class ColdModel(FakeModel):
    """A model that is loaded on demand, cold until the test says otherwise."""

    on_demand = True

    def __init__(self) -> None:
        super().__init__()
        self.state = ModelState.ON_DEMAND

    def unavailable(self) -> ColdModelError:
        return ColdModelError("it is cold", model=self.name, version=self.version)

    def require_signature(self) -> ModelSignature:
        if self.state is not ModelState.READY:
            raise self.unavailable()
        return super().require_signature()


class NoWaits:
    """For tests in which no model is cold."""

    def add(self, *_: object, **__: object) -> Callable[[], None]:
        raise AssertionError("no model is cold")


class FakeRegistry:
    """A registry with one model."""

    def __init__(self, model: FakeModel) -> None:
        self._model = model

    def get(self, name: str, version: str = "") -> FakeModel:
        if name != self._model.name or version not in {"", self._model.version}:
            raise ModelNotFoundError(f'there is no model "{name}"')
        if isinstance(self._model, ColdModel) and self._model.state is not ModelState.READY:
            raise self._model.unavailable()
        return self._model

    def find(self, name: str, version: str = "", visible: Callable[[str], bool] | None = None) -> FakeModel:
        if visible is not None and not visible(name):
            raise ModelNotFoundError(f'there is no model "{name}"')
        try:
            return self.get(name, version)
        except ColdModelError:
            return self._model


class FakeCall(Finishing):
    """A call, unary or a stream, that records what handlers do to it."""

    method = "/package.Service/Method"

    def __init__(self, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self.metadata = metadata
        self.deadline = math.inf
        self.ended_at = math.inf
        self.context = CallContext()
        self.annotations: dict[str, object] = {}
        self.reads = 0
        self.sent: list[bytes] = []
        self.ended: tuple[grpc.StatusCode, str] | None = None
        self.terminated: Callable[[], None] | None = None
        self.finishers: list[Finisher] = []

    def on_terminated(self, callback: Callable[[], None]) -> None:
        self.terminated = callback

    def read(self) -> None:
        self.reads += 1

    def send(self, message: bytes) -> bool:
        assert self.ended is None, "sent after the status"
        self.sent.append(message)
        return True

    def reply(self, message: bytes, trailing_metadata: object = ()) -> bool:
        self.sent.append(message)
        return self.finish()

    def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: object = ()) -> bool:
        return self.finish(code, details)

    def abort_paced(self, code: grpc.StatusCode, details: str, trailing_metadata: object = ()) -> None:
        self.abort(code, details, trailing_metadata)

    def finish(
        self, code: grpc.StatusCode = grpc.StatusCode.OK, details: str = "", trailing_metadata: object = ()
    ) -> bool:
        if self.ended is not None:
            return False
        self.ended = (code, details)
        self.ended_at = 0.0
        return True


class Soon:
    """Keeps scheduled calls until the test runs them."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def __call__(self, callback: Callable[[], None]) -> None:
        self.waiting.append(callback)

    def run(self) -> None:
        waiting, self.waiting = self.waiting, []
        for callback in waiting:
            callback()


class FakeLargeMessages:
    """Keeps work for the thread of large messages, and calls on the poll thread, until the test runs them."""

    def __init__(self) -> None:
        self.call_soon = Soon()
        self.work = Soon()
        self.full = False

    def decode(self, work: Callable[[], None]) -> None:
        if self.full:
            raise OverloadedError("too many", retry_after_s=1.0)
        self.work(work)

    def do(self, work: Callable[[], None]) -> None:
        self.work(work)


class CountedBytes(bytes):
    """A message that counts reads of single bytes."""

    reads = 0

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, int):
            self.reads += 1
        return super().__getitem__(key)

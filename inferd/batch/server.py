"""Runs batches on a server, beside its other requests: after them, and fewer at a time when it says so."""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from inferd.batch.errors import INVALID_INPUT, RUN_FAILED, BatchError, RowsFailedError, UsageError
from inferd.batch.window import Window
from inferd.client import Client
from inferd.client.errors import (
    Cancelled,
    DeadlineExceeded,
    InferdError,
    Internal,
    InvalidInput,
    Overloaded,
    Unavailable,
)
from inferd.client.results import ModelInfo, TensorInfo
from inferd.dtypes import BY_NAME
from inferd.endpoint import Endpoint
from inferd.runtime.signature import Array, ModelSignature, Tensors, TensorSpec

#: Requests at a time, at the most, unless given.
_IN_FLIGHT = 16
#: The time of one request, with its wait behind all others. What takes longer is sent again.
_CALL_S = 120.0
#: A job ends if no request was answered for this long.
_PATIENCE_S = 600.0
#: Errors after which the same request may be answered.
_PASSING = (Overloaded, Unavailable, DeadlineExceeded, Cancelled)
#: Reasons of these that stay: a request that is larger than the server takes.
_STAYS = {"MESSAGE_TOO_LARGE"}


class ServerRunner:
    """Runs the model ``info`` through ``client``. One thread submits; futures may be waited for in any."""

    def __init__(self, client: Client, info: ModelInfo, *, in_flight: int | None = None) -> None:
        self._client = client
        self._info = info
        self._signature = _signature(info)
        # The class that runs when nothing else waits.
        self._priority = info.batching.priority_levels + 1 if info.batching.priority_levels else 0
        #: Requests at a time, at the most.
        self.places = in_flight or _IN_FLIGHT
        self._window = Window(self.places)
        self._changed = threading.Condition()
        self._threads = ThreadPoolExecutor(self.places, thread_name_prefix="inferd-batch-call")
        self._answered_at = time.monotonic()
        self._is_closed = False
        self._busy_s = 0.0

    @property
    def signature(self) -> ModelSignature:
        """The inputs and outputs of the model."""
        return self._signature

    @property
    def max_rows(self) -> int:
        """The most rows of a batch of the server; 1 if the model may not batch."""
        return self._info.batching.max_batch_size if self._signature.batchable else 1

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the answers depend on, as far as a server says it."""
        return {"name": self._info.name, "version": self._info.version, "providers": list(self._info.providers)}

    @property
    def busy_s(self) -> float:
        """The time that calls have taken, of all places together."""
        return self._busy_s

    def submit(self, inputs: Tensors, outputs: Sequence[str]) -> "Future[Mapping[str, Array]]":
        """Begin a call; waits until the server wants one more."""
        self._enter()
        return self._threads.submit(self._call, inputs, outputs)

    def close(self) -> None:
        """Cancel what is on its way."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._client.close()
        self._threads.shutdown(cancel_futures=True)

    def _enter(self) -> None:
        """Wait for a place in the window, and take it."""
        with self._changed:
            while (wait_s := self._window.wait_s(time.monotonic())) != 0.0:
                if self._is_closed:
                    raise BatchError("the job has ended")
                self._changed.wait(wait_s)
            self._window.sent()

    def _call(self, inputs: Tensors, outputs: Sequence[str]) -> Mapping[str, Array]:
        """Ask until there is an answer. Has a place in the window when it begins, and none when it ends."""
        while True:
            sent_at = time.monotonic()
            try:
                result = self._client.infer(
                    self._info.name,
                    inputs,
                    outputs=outputs,
                    version=self._info.version,
                    priority=self._priority,
                    timeout_s=_CALL_S,
                )
            except InferdError as error:
                failure = self._failure(error, sent_at)
                if failure is not None:
                    raise failure from None
                self._enter()
            else:
                self._leave(sent_at)
                return result.outputs

    def _failure(self, error: InferdError, sent_at: float) -> Exception | None:
        """Return what a call that failed comes to; None if it is to be made again."""
        now = time.monotonic()
        if isinstance(error, _PASSING) and error.reason not in _STAYS and not self._is_closed:
            with self._changed:
                self._busy_s += now - sent_at
                self._window.refused(now, sent_at, error.retry_after_s)
                self._changed.notify_all()
                waited_s = now - self._answered_at
            if waited_s < _PATIENCE_S:
                return None
            return BatchError(f"no request was answered for {waited_s:.0f} s: {error}; run it again: it continues")
        self._leave(sent_at)
        if isinstance(error, InvalidInput | Overloaded):
            return RowsFailedError(INVALID_INPUT, error.message)
        if isinstance(error, Internal):
            return RowsFailedError(RUN_FAILED, error.message)
        return BatchError(f"the server refuses the job: {error}")

    def _leave(self, sent_at: float) -> None:
        with self._changed:
            self._answered_at = time.monotonic()
            self._busy_s += self._answered_at - sent_at
            self._window.answered()
            self._changed.notify_all()


def open_server(endpoint: Endpoint, model: str, version: str = "", *, in_flight: int | None = None) -> ServerRunner:
    """Connect to a server and find ``model``. Raises `UsageError` or `BatchError`."""
    client = Client(
        endpoint.address,
        tls=endpoint.tls,
        token=endpoint.token,
        allow_insecure_token=endpoint.allow_insecure_token,
        retry=None,
    )
    try:
        info = client.model(model, version=version, load=True, timeout_s=_CALL_S)
        _require_tables(info)
        return ServerRunner(client, info, in_flight=in_flight)
    except InferdError as error:
        client.close()
        raise BatchError(f"{endpoint.address}: {error}") from None
    except BaseException:
        client.close()
        raise


def _require_tables(info: ModelInfo) -> None:
    if info.generation is not None:
        raise UsageError(f"{info.name} is a language model, which generates text for requests, not for tables")


def _signature(info: ModelInfo) -> ModelSignature:
    axes = [each.batch_axis for each in info.inputs if not each.optional]
    batchable = info.batching.enabled and any(axis is not None for axis in axes)
    return ModelSignature(
        inputs=tuple(_spec(each, batchable=batchable) for each in info.inputs),
        outputs=tuple(_spec(each, batchable=batchable) for each in info.outputs),
        batchable=batchable,
    )


def _spec(tensor: TensorInfo, *, batchable: bool) -> TensorSpec:
    return TensorSpec(
        name=tensor.name,
        datatype=BY_NAME[tensor.datatype],
        shape=tensor.shape,
        batch_axis=tensor.batch_axis if batchable else None,
        optional=tensor.optional,
    )

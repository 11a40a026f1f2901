"""Run batches on a live server, after its other requests; refusals reduce the requests in flight."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from typing import Any

from inferd.batch.bounded_threads import BoundedThreads
from inferd.batch.errors import INVALID_INPUT, RUN_FAILED, BatchError, RowsFailedError, UsageError
from inferd.batch.window import Window
from inferd.client import Client
from inferd.client.errors import (
    Cancelled,
    DeadlineExceeded,
    InferdError,
    Internal,
    InvalidInput,
    NotFound,
    Overloaded,
    Unavailable,
)
from inferd.client.results import ModelInfo, TensorInfo
from inferd.dtypes import BY_NAME
from inferd.endpoint import Endpoint
from inferd.plain_text import listed
from inferd.runtime.signature import Array, ModelSignature, Tensors, TensorSpec

#: The most requests in flight, unless --in-flight is given.
_IN_FLIGHT = 16
#: The deadline of a request, which waits behind all others. After it the request is sent again.
_CALL_S = 120.0
#: A job fails if no request was answered for this long.
_PATIENCE_S = 600.0
#: The most bytes of inputs in one request: larger ones are no cheaper per byte, and all in flight are in memory.
_MOST_BYTES = 4 * 2**20

#: Errors after which a request is sent again, and the reasons that except it: its rows are the cause.
_PASSING = (Overloaded, Unavailable, DeadlineExceeded, Cancelled)
_OF_ROWS = {"MESSAGE_TOO_LARGE", "OUT_OF_MEMORY", "RUN_TOO_LONG", "INFERENCE_FAILED"}
#: A part of gRPC's message about requests and answers above its limits, which have no reason.
_TOO_LARGE = "essage larger than max"


class ServerRunner:
    """Runs the model ``info`` through ``client``. Threads: one for `submit`; any may wait for futures.

    Each call has a thread until it is answered, and a place in the window while it is in flight.
    """

    def __init__(
        self,
        client: Client,
        info: ModelInfo,
        *,
        in_flight: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._info = info
        self._signature = _signature(info)
        # The lowest class, which runs when nothing else waits.
        self._priority = info.batching.priority_levels + 1 if info.batching.priority_levels else 0
        self._clock = clock
        self._threads = BoundedThreads(in_flight or _IN_FLIGHT, "inferd-batch-call")
        self._changed = threading.Condition()
        self._window = Window(self.places)
        self._answered_at = clock()
        self._busy_s = 0.0
        self._is_closed = False

    @property
    def signature(self) -> ModelSignature:
        """The inputs and outputs of the model."""
        return self._signature

    @property
    def max_rows(self) -> int:
        """The most rows of a batch of the server; 1 if the model cannot be batched."""
        return max(1, self._info.batching.max_batch_size) if self._signature.batchable else 1

    @property
    def max_bytes(self) -> int:
        """The most bytes of inputs in one request."""
        return _MOST_BYTES

    @property
    def run_costs(self) -> Mapping[int, float]:
        """The seconds of a run by its rows that the server learned; empty if it does not report them."""
        cost = self._info.run_cost
        return {} if cost is None else {run.rows: run.seconds for run in cost.sizes}

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the answers depend on, as far as a server reports it."""
        return {"name": self._info.name, "version": self._info.version, "providers": list(self._info.providers)}

    @property
    def places(self) -> int:
        """The most requests in flight."""
        return self._threads.places

    @property
    def busy_s(self) -> float:
        """The seconds that calls took, summed over all places."""
        return self._busy_s

    def submit(self, inputs: Tensors, outputs: Sequence[str]) -> "Future[Mapping[str, Array]]":
        """Start a call; block while all places are taken."""
        return self._threads.submit(self._call, inputs, outputs)

    def close(self) -> None:
        """Cancel all calls, and close the connection."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._client.close()
        self._threads.close()

    def _call(self, inputs: Tensors, outputs: Sequence[str]) -> Mapping[str, Array]:
        """Send the request until it is answered; return the outputs. Raises `RowsFailedError` or `BatchError`."""
        began_at = self._clock()
        while True:
            sent_at = self._enter()
            try:
                answer = self._client.infer(
                    self._info.name,
                    inputs,
                    outputs=outputs,
                    version=self._info.version,
                    priority=self._priority,
                    timeout_s=_CALL_S,
                )
            except InferdError as error:
                failure = self._failure(error, sent_at, began_at)
                if failure is not None:
                    raise failure from None
            else:
                self._leave(sent_at)
                return answer.outputs

    def _enter(self) -> float:
        """Wait for a place in the window, and take it; return the time."""
        with self._changed:
            while (wait_s := self._window.wait_s(self._clock())) != 0.0 and not self._is_closed:
                self._changed.wait(wait_s)
            if self._is_closed:
                raise BatchError("the job has ended")
            self._window.sent()
            return self._clock()

    def _failure(self, error: InferdError, sent_at: float, began_at: float) -> Exception | None:
        """Return the error of a failed call; None if it is to be sent again."""
        if _is_passing(error) and not self._is_closed:
            now = self._clock()
            with self._changed:
                self._busy_s += now - sent_at
                self._window.refused(now, sent_at, error.retry_after_s)
                self._changed.notify_all()
                waited_s = now - max(self._answered_at, began_at)
            if waited_s < _PATIENCE_S:
                return None
            return BatchError(f"no request was answered for {waited_s:.0f} s: {error}; run it again: it continues")
        self._leave(sent_at)
        if isinstance(error, InvalidInput):
            return RowsFailedError(INVALID_INPUT, error.message)
        if _is_of_rows(error):
            return RowsFailedError(RUN_FAILED, error.message)
        return BatchError(f"the server refuses the job: {error}")

    def _leave(self, sent_at: float) -> None:
        with self._changed:
            self._answered_at = self._clock()
            self._busy_s += self._answered_at - sent_at
            self._window.answered()
            self._changed.notify_all()


def _is_of_rows(error: InferdError) -> bool:
    return error.reason in _OF_ROWS or _TOO_LARGE in error.message


def _is_passing(error: InferdError) -> bool:
    # A server names its reason; without one, a connection was lost in the middle of an answer.
    is_lost = isinstance(error, Internal) and not error.reason
    return not _is_of_rows(error) and (is_lost or isinstance(error, _PASSING))


def open_server(endpoint: Endpoint, model: str, version: str = "", *, in_flight: int | None = None) -> ServerRunner:
    """Connect to a server and find ``model``, once it is loaded. Raises `UsageError` or `BatchError`."""
    client = Client(
        endpoint.address,
        tls=endpoint.tls,
        token=endpoint.token,
        allow_insecure_token=endpoint.allow_insecure_token,
        retry=None,
    )
    with ExitStack() as stack:
        stack.callback(client.close)
        try:
            info = client.model(model, version=version, load=True, timeout_s=_CALL_S)
            if not info.inputs:
                client.wait_until_ready(info.name, version=info.version, timeout_s=_CALL_S)
                info = client.model(info.name, version=info.version, timeout_s=_CALL_S)
        except NotFound as error:
            raise UsageError(f"MODEL {model}: {endpoint.address}: {error}{_known_models(client)}") from None
        except InferdError as error:
            raise BatchError(f"{endpoint.address}: {error}") from None
        _require_tables(info)
        runner = ServerRunner(client, info, in_flight=in_flight)
        # The runner closes it.
        stack.pop_all()
    return runner


def _known_models(client: Client) -> str:
    """Return the server's models as an addition to an error; empty if it does not list them."""
    with suppress(InferdError):
        names = dict.fromkeys(each.name for each in client.models(timeout_s=_CALL_S))
        return f"; its models are {listed(names) or 'none'}"
    return ""


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

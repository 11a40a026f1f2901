"""Callers in loops that record each call."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from inferd import demo
from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from tests.patience import PATIENCE_S

CALLERS = 4
_TIMEOUT_S = PATIENCE_S


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """A finished call: when it began, on the monotonic clock, and its status."""

    began_s: float
    code: grpc.StatusCode
    details: str


class Traffic:
    """The calls so far. The callers' threads append to its lists."""

    def __init__(self) -> None:
        self.answered = 0
        self.failed: list[Ended] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def call_on(self, stub: InferenceServiceStub, metadata: Sequence[tuple[str, str]]) -> None:
        """Call until told to stop."""
        row = demo.samples().inputs[:1]
        request = v1.InferRequest(model="digits", inputs=[v1.Tensor(name="X", shape=row.shape, raw=row.tobytes())])
        while not self._stopping.is_set():
            began_s = time.monotonic()
            try:
                stub.Infer(request, timeout=_TIMEOUT_S, metadata=metadata)
            except grpc.RpcError as error:
                self.failed.append(Ended(began_s=began_s, code=error.code(), details=error.details()))
            else:
                with self._lock:
                    self.answered += 1

    def stop(self) -> None:
        """Let every caller finish its call."""
        self._stopping.set()


@contextmanager
def traffic(channel: grpc.Channel, metadata: Sequence[tuple[str, str]] = ()) -> Iterator[Traffic]:
    """Call over ``channel`` from several threads until the block ends."""
    calls = Traffic()
    stub = InferenceServiceStub(channel)
    threads = [threading.Thread(target=calls.call_on, args=(stub, metadata)) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield calls
    finally:
        calls.stop()
        for thread in threads:
            thread.join()

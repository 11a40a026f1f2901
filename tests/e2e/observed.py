"""A server under a load that shows in every metric, with a Prometheus that watches."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import numpy as np

from inferd import demo
from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from tests.load import PATIENCE_S, add_model, array, busy_model, connect, request
from tests.prometheus import Prometheus, scraping
from tests.server import ServerProcess, serving

#: Its queue is so short and its runs so long that a few callers are too many.
_SLOW = {"queue": {"max_rows": 4, "max_delay_ms": 50}, "batching": {"max_batch_size": 2}}
_SLOW_TURNS = 600

_BETWEEN_CALLS_S = 0.01


@contextmanager
def observed(folder: Path, *, callers: int = 4, flood: int = 12) -> Iterator[tuple[ServerProcess, Prometheus]]:
    """Serve two models, with ``callers`` of the quick one, ``flood`` of the slow one, a stream and some mistakes."""
    models, data = folder / "models", folder / "prometheus"
    add_model(models, "slow", busy_model(), _SLOW)
    data.mkdir()
    with ExitStack() as stack:
        server = stack.enter_context(serving(demo.repository(), models, environment={"INFERD_LOG__ACCESS": "false"}))
        stack.enter_context(load(server, callers=callers, flood=flood))
        yield server, stack.enter_context(scraping(data, server.http))


@contextmanager
def load(server: ServerProcess, *, callers: int, flood: int) -> Iterator[None]:
    """Call from threads, each again and again."""
    stopping = threading.Event()
    with connect(server.grpc) as channel:
        stub = InferenceServiceStub(channel)
        jobs = [_quick(stub)] * callers + [_slow(stub)] * flood + [_mistake(stub), _stream(stub)]
        threads = [threading.Thread(target=_repeat, args=(job, stopping)) for job in jobs]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stopping.set()
            for thread in threads:
                thread.join(PATIENCE_S)


def _repeat(job: Callable[[], object], stopping: threading.Event) -> None:
    while not stopping.wait(_BETWEEN_CALLS_S):
        try:
            job()
        except grpc.RpcError as error:
            if error.code() not in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT}:
                raise


def _digits(rows: int = 1) -> v1.InferRequest:
    inputs: Sequence[v1.Tensor] = [
        v1.Tensor(name="X", shape=[rows, 64], raw=np.zeros((rows, 64), np.float32).tobytes())
    ]
    return v1.InferRequest(model="digits", inputs=inputs)


def _quick(stub: InferenceServiceStub) -> Callable[[], object]:
    return lambda: stub.Infer(_digits(), timeout=PATIENCE_S)


def _slow(stub: InferenceServiceStub) -> Callable[[], object]:
    return lambda: stub.Infer(request("slow", array(1, turns=_SLOW_TURNS)), timeout=PATIENCE_S)


def _mistake(stub: InferenceServiceStub) -> Callable[[], object]:
    return lambda: stub.Infer(request("digits", array(1)), timeout=PATIENCE_S)


def _stream(stub: InferenceServiceStub) -> Callable[[], object]:
    message = v1.StreamInferRequest(requests=[_digits(2) for _ in range(8)])
    return lambda: list(stub.StreamInfer(iter([message] * 4), timeout=PATIENCE_S))

"""Runs that do not end, or take long: effects on others, and whether the model answers again."""

import signal
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil

from benchmarks.hostile.sender import OPTIONS
from benchmarks.hostile.target import Target, serving
from benchmarks.hostile.trial import Scene
from inferd._generated.inference import grpc_service_pb2 as pb
from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub

GRACE_S = 5.0
_GRACE = {"INFERD_SERVER__DRAIN_GRACE_S": str(GRACE_S)}
_SHORT_RUNS = 64
_ENDLESS = 2**62
#: Elements for which the single operator of the model takes about thirty seconds.
_LONG_ELEMENTS = 245_000
_DEADLINE_S = 1.0
_AGAIN_TIMEOUT_S = 60.0
_END_TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LongRun:
    """A request whose run takes long, with a deadline of a second.

    ``answered_again_s``: from the status of the call to an answer of the same model. ``stopped_s`` and ``exit_code``
    are of a shutdown during such a run that a caller still waits for; None if that was not measured.
    """

    run: str
    status: str
    took_s: float
    silence_s: float
    caller_silence_s: float
    late_s: float
    answered_again_s: float
    stopped_s: float | None = None
    exit_code: int | None = None


def run(tree: Path, environment: Mapping[str, str]) -> Iterator[LongRun]:
    """Measure an endless loop, one long operator, and a shutdown during an endless loop."""
    settings = {**_GRACE, **environment}
    with serving(tree, settings) as target, Scene(target) as scene, _channel(target) as channel:
        stub = GRPCInferenceServiceStub(channel)
        for _ in range(_SHORT_RUNS):
            stub.ModelInfer(_trips(10), timeout=_DEADLINE_S)
        yield _try(scene, "2^62 trips of a loop", stub, _trips(_ENDLESS), _trips(10))
        yield _try(scene, "one operator of 30 s", stub, _boxes(_LONG_ELEMENTS), _boxes(10))
    with serving(tree, settings) as target, _channel(target) as channel:
        yield _stop(target, GRPCInferenceServiceStub(channel))


def _try(
    scene: Scene, name: str, stub: GRPCInferenceServiceStub, long: pb.ModelInferRequest, short: pb.ModelInferRequest
) -> LongRun:
    began = time.monotonic()
    status = _status(lambda: stub.ModelInfer(long, timeout=_DEADLINE_S))
    ended = time.monotonic()
    while _status(lambda: stub.ModelInfer(short, timeout=_DEADLINE_S)) != "OK":
        if time.monotonic() > ended + _AGAIN_TIMEOUT_S:
            break
    again = time.monotonic()
    health, caller = scene.seen(began, again)
    return LongRun(
        run=name,
        status=status,
        took_s=ended - began,
        silence_s=health.silence_s,
        caller_silence_s=caller.silence_s,
        late_s=health.late_s,
        answered_again_s=again - ended,
    )


def _stop(target: Target, stub: GRPCInferenceServiceStub) -> LongRun:
    """Stop the server by a signal while a caller without a deadline waits for an endless run."""
    began = time.monotonic()
    call = stub.ModelInfer.future(_trips(_ENDLESS))
    time.sleep(_DEADLINE_S)
    process, stopped = psutil.Process(target.server.pid), time.monotonic()
    process.send_signal(signal.SIGTERM)
    while target.server.ended_with is None and time.monotonic() < stopped + _END_TIMEOUT_S:
        time.sleep(0.02)
    stopped_s = time.monotonic() - stopped
    status = _status(lambda: call.result(timeout=_DEADLINE_S))
    return LongRun(
        run=f"a stop with a grace of {GRACE_S:g} s during 2^62 trips",
        status=status,
        took_s=time.monotonic() - began,
        silence_s=0.0,
        caller_silence_s=0.0,
        late_s=0.0,
        answered_again_s=0.0,
        stopped_s=stopped_s,
        exit_code=target.server.ended_with,
    )


def _trips(count: int) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="trips", raw_input_contents=[struct.pack("<q", count)])
    request.inputs.add(name="x", datatype="INT64", shape=[1])
    return request


def _boxes(elements: int) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="boxes", raw_input_contents=[bytes(4 * elements)])
    request.inputs.add(name="x", datatype="FP32", shape=[1, elements])
    return request


def _channel(target: Target) -> grpc.Channel:
    return grpc.insecure_channel(f"127.0.0.1:{target.port}", OPTIONS)


def _status(ask: Callable[[], object]) -> str:
    try:
        ask()
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code.name
    except grpc.FutureTimeoutError:
        return "no answer"
    return "OK"

"""Run batches in a worker process: a crash there, for example in a kernel, is an error of the rows that ran."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import cast

from inferd.batch.errors import RUN_FAILED, BatchError, RowsFailedError
from inferd.batch.ports import BatchRunner
from inferd.batch.worker_process import ProcessFailedError, WorkerProcess
from inferd.runtime.signature import Array, ModelSignature, Tensors

#: The result of a run: its outputs, or the code and the message of its failure.
_Outcome = Mapping[str, Array] | tuple[str, str]


class IsolatedRunner:
    """Opens a runner by ``open_runner`` in a worker process, and starts another process after that one ended.

    One run at a time. Threads: one for `submit`; any for `close`.
    """

    def __init__(self, signature: ModelSignature, open_runner: Callable[[], BatchRunner]) -> None:
        self._signature = signature
        self._open_runner = open_runner
        self._process: WorkerProcess | None = None
        self._is_closed = False
        self._busy_s = 0.0

    @property
    def signature(self) -> ModelSignature:
        """The inputs and outputs of the model."""
        return self._signature

    @property
    def places(self) -> int:
        """1: the process answers one message at a time."""
        return 1

    @property
    def busy_s(self) -> float:
        """The seconds that runs took, without starts of the process."""
        return self._busy_s

    def submit(self, inputs: Tensors, outputs: Sequence[str]) -> "Future[Mapping[str, Array]]":
        """Run ``inputs``, and return the outputs as a future that is done."""
        answer: Future[Mapping[str, Array]] = Future()
        try:
            answer.set_result(self._run(inputs, outputs))
        except (BatchError, RowsFailedError) as error:
            answer.set_exception(error)
        return answer

    def close(self) -> None:
        """End the process, also in the middle of a run."""
        self._is_closed = True
        if self._process is not None:
            self._process.close()

    def _run(self, inputs: Tensors, outputs: Sequence[str]) -> Mapping[str, Array]:
        process = self._alive()
        began = time.monotonic()
        try:
            outcome = cast("_Outcome", process.ask((dict(inputs), tuple(outputs))))
        except ProcessFailedError as error:
            if self._is_closed:
                raise BatchError("the job has ended") from None
            process.close()
            self._process = None
            raise RowsFailedError(RUN_FAILED, f"run in a process of its own: {error}") from None
        finally:
            self._busy_s += time.monotonic() - began
        if isinstance(outcome, tuple):
            raise RowsFailedError(*outcome)
        return outcome

    def _alive(self) -> WorkerProcess:
        if self._process is None:
            self._process = WorkerProcess(partial(_begin_running, self._open_runner), "runs rows")
        if self._is_closed:
            self._process.close()
            raise BatchError("the job has ended")
        return self._process


def _begin_running(open_runner: Callable[[], BatchRunner]) -> Callable[[tuple[Tensors, Sequence[str]]], _Outcome]:
    """Open the runner in the worker process; return the function that answers its messages."""
    return partial(_outcome, open_runner())


def _outcome(runner: BatchRunner, batch: tuple[Tensors, Sequence[str]]) -> _Outcome:
    try:
        return runner.submit(*batch).result()
    except RowsFailedError as error:
        return error.code, error.message

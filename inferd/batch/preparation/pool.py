"""Prepare columns in worker processes. A row that crashes its process becomes an error; no other row does."""

import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Self, cast

import numpy as np
import pyarrow as pa

from inferd.batch.blocks import BadRows
from inferd.batch.errors import BatchError
from inferd.batch.ports import Preparation, Prepared
from inferd.batch.tensors import tensor_of
from inferd.batch.worker_process import ProcessFailedError, WorkerProcess
from inferd.plain_text import clipped, escaped
from inferd.runtime.signature import Array

#: The name of the only column of a message.
_NAME = "column"


class PreparationPool:
    """Context with ``workers`` processes that run ``preparation``; with 0, `submit` runs it itself.

    None is one for each core. Processes start with the first column to prepare.

    Threads: one. Each process has a thread, which waits for it and starts another after it has ended.
    """

    def __init__(self, preparation: Preparation, workers: int | None) -> None:
        self.size = len(os.sched_getaffinity(0)) if workers is None else workers
        self._preparation = preparation
        self._tasks: queue.SimpleQueue[tuple[pa.Array, Future[Prepared]] | None] = queue.SimpleQueue()
        self._workers = [_Worker(preparation, self._tasks) for _ in range(self.size)]

    def __enter__(self) -> Self:
        """Start the threads."""
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the processes; columns that are not prepared yet fail."""
        for worker in self._workers:
            worker.stop()
        for _worker in self._workers:
            self._tasks.put(None)
        for worker in self._workers:
            worker.join()

    def submit(self, column: pa.Array) -> "Future[Prepared]":
        """Start to prepare all rows of ``column``. The future raises `BatchError` if no process can be started."""
        future: Future[Prepared] = Future()
        if self._workers:
            self._tasks.put((column, future))
        else:
            future.set_result(self._preparation(column))
        return future


class _Worker:
    """A thread with a process.

    Threads: ``_run`` its own, which alone starts and uses processes; the pool's for the others. ``_lock`` is held to
    replace or kill the process, so that none is started after `stop`.
    """

    def __init__(
        self, preparation: Preparation, tasks: "queue.SimpleQueue[tuple[pa.Array, Future[Prepared]] | None]"
    ) -> None:
        self._preparation = preparation
        self._tasks = tasks
        self._process: WorkerProcess | None = None
        self._is_stopped = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="inferd-batch-worker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Kill the process, and start no other."""
        with self._lock:
            self._is_stopped = True
            if self._process is not None:
                self._process.kill()

    def join(self) -> None:
        """Wait until thread and process have ended."""
        self._thread.join()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            column, future = task
            try:
                future.set_result(self._prepared(column))
            except Exception as error:  # noqa: BLE001  (raised by the future)
                future.set_exception(error)
        if self._process is not None:
            self._process.close()

    def _prepared(self, column: pa.Array) -> Prepared:
        try:
            return self._attempt(column)
        except ProcessFailedError:
            return prepare_row_by_row(self._preparation, self._attempt, column)

    def _attempt(self, column: pa.Array) -> Prepared:
        process = self._alive()
        try:
            return cast("Prepared", process.ask(packed(column)))
        except ProcessFailedError:
            if self._is_stopped:
                raise BatchError("the job has ended") from None
            raise

    def _alive(self) -> WorkerProcess:
        with self._lock:
            if self._is_stopped:
                raise BatchError("the job has ended")
            if self._process is None or not self._process.is_alive:
                if self._process is not None:
                    self._process.close()
                self._process = None
                self._process = WorkerProcess(partial(begin_preparing, self._preparation), "prepares rows")
            return self._process


def prepare_row_by_row(preparation: Preparation, attempt: Callable[[pa.Array], Prepared], column: pa.Array) -> Prepared:
    """Return the tensors of ``column`` by an ``attempt`` for each row; a row that fails is bad."""
    none, _ = preparation(column.slice(0, 0))
    rows: dict[str, list[Array | None]] = {name: [] for name in none}
    bad: BadRows = {}
    for index in range(len(column)):
        try:
            tensors, own = attempt(column.slice(index, 1))
        except ProcessFailedError as error:
            own = {0: clipped(escaped(str(error)))}
        if own:
            bad[index] = own[0]
        for name, values in rows.items():
            values.append(None if own else tensors[name].rows(slice(0, 1))[0])
    like = {name: tensor.rows(slice(0, 0)) for name, tensor in none.items()}
    return {
        name: tensor_of(values, np.zeros(like[name].shape[1:], like[name].dtype)) for name, values in rows.items()
    }, bad


def packed(column: pa.Array) -> pa.Buffer:
    """Serialize ``column``; of a slice only its own rows, unlike pickle."""
    batch = pa.record_batch([column], [_NAME])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue()


def begin_preparing(preparation: Preparation) -> Callable[[object], Prepared]:
    """Return the function that answers messages, which are packed columns; called in the worker process."""
    return partial(_prepared, preparation)


def _prepared(preparation: Preparation, content: object) -> Prepared:
    with pa.ipc.open_stream(content) as stream:
        return preparation(stream.read_next_batch()[_NAME])

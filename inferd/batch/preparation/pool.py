"""Processes that prepare columns side by side. A row that they cannot survive costs that row only."""

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
from inferd.batch.preparation.packing import begin_preparing, packed
from inferd.batch.preparation.rows import tensor_of
from inferd.batch.processes.process import ProcessFailedError, WorkerProcess
from inferd.plain_text import clipped, escaped
from inferd.runtime.signature import Array


class PreparationPool:
    """Context with ``workers`` processes that run ``preparation``; without any, `submit` does it itself.

    None is one for each processor. Processes start when there is something to prepare.

    Threads: the caller's only. Each process has a thread, which waits for it and starts another when it has ended.
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
        """End the processes, whatever they do; columns that are not prepared yet fail."""
        for worker in self._workers:
            worker.stop()
        for _worker in self._workers:
            self._tasks.put(None)
        for worker in self._workers:
            worker.join()

    def submit(self, column: pa.Array) -> "Future[Prepared]":
        """Begin to prepare all rows of ``column``. The result raises `BatchError` if no process can be started."""
        future: Future[Prepared] = Future()
        if self._workers:
            self._tasks.put((column, future))
        else:
            future.set_result(self._preparation(column))
        return future


class _Worker:
    """A thread with a process.

    Threads: ``_run`` its own, which alone starts and uses processes; the others the pool's. ``_lock`` is held to change
    the process or to kill it, so that none is started after `stop`.
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
        """Let no process be used any more."""
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
            except Exception as error:  # noqa: BLE001  (it is raised where the result is asked for)
                future.set_exception(error)
        if self._process is not None:
            self._process.close()

    def _prepared(self, column: pa.Array) -> Prepared:
        try:
            return self._attempt(column)
        except ProcessFailedError:
            return prepared_apart(self._preparation, self._attempt, column)

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


def prepared_apart(preparation: Preparation, attempt: Callable[[pa.Array], Prepared], column: pa.Array) -> Prepared:
    """Return the tensors of ``column`` by an ``attempt`` for each row: one that fails alone is bad."""
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

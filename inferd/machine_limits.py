"""Makes settings fit the machine: what it cannot hold is lowered before anything relies on it, and said."""

import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from inferd.config.section import Section
from inferd.config.settings import Backpressure, Settings
from inferd.models.settings import max_threads_per_run
from inferd.observability.http import MOST_CONNECTIONS
from inferd.runtime.resources import cgroup_directories, read_file, usable_bytes, usable_cores

#: Descriptors that are opened after the start: the core's own, models and credentials that are read again, the log.
_OWN_DESCRIPTORS = 48
#: Connections of the HTTP port: of what is left, a third at most, and no more than it ever wants.
_HTTP_SHARE = 3

#: Threads whatever the settings: those of the architecture's table, and those of gRPC's core and of the exporter.
_OWN_THREADS = 24
_OWN_THREADS_PER_CORE = 2

#: What a message or a queue takes of the memory, at most: it is there as bytes, as arrays and once more in a batch.
_MEMORY_SHARE = 4

S = TypeVar("S", bound=Section)


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What there is for this process. ``threads`` is how many more it may start, None for no limit."""

    descriptors: int
    open_descriptors: int
    threads: int | None
    memory_bytes: int
    cores: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Lowered:
    """A setting that the machine cannot hold, and what it was lowered to."""

    setting: str
    value: int
    to: int
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """Settings that fit, what had to be lowered for that, and how many connections the HTTP port may have."""

    settings: Settings
    lowered: tuple[Lowered, ...]
    http_connections: int


def this_machine() -> Machine:
    """Look at what there is, with the soft limits raised to the hard ones, which many systems set higher."""
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC):
        with suppress(ValueError, OSError):  # some containers forbid it
            _, hard = resource.getrlimit(limit)
            resource.setrlimit(limit, (hard, hard))
    return Machine(
        descriptors=_finite(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        open_descriptors=_entries(Path("/proc/self/fd")),
        threads=min(_threads_left(), default=None),
        memory_bytes=usable_bytes(),
        cores=usable_cores(),
    )


def fit(settings: Settings, machine: Machine, models: int) -> Fitted:
    """Lower what ``machine`` cannot hold of the settings of a server with so many ``models``; pure."""
    lowered: list[Lowered] = []

    def at_most(setting: str, value: int, most: int, why: str) -> None:
        if value > most:
            lowered.append(Lowered(setting=setting, value=value, to=most, why=why))

    spare = max(machine.descriptors - machine.open_descriptors - _OWN_DESCRIPTORS, _HTTP_SHARE)
    http = min(MOST_CONNECTIONS, spare // _HTTP_SHARE)
    why = f"the process may have {machine.descriptors} files open (ulimit -n)"
    at_most("server.connections.max_open", settings.server.connections.max_open, spare - http, why)

    bytes_each = machine.memory_bytes // _MEMORY_SHARE
    why = f"there are {machine.memory_bytes} bytes of memory"
    at_most("server.max_message_bytes", settings.server.max_message_bytes, bytes_each, why)
    at_most("queue.max_bytes", settings.queue.max_bytes, bytes_each, why)

    if machine.threads is not None:
        why = f"the process may start {machine.threads} more threads (ulimit -u, pids.max)"
        left = machine.threads - _OWN_THREADS - _OWN_THREADS_PER_CORE * machine.cores
        for setting, value, most in _threads(settings, machine.cores, left, max(models, 1)):
            at_most(setting, value, most, why)
    return Fitted(settings=_with(settings, lowered), lowered=tuple(lowered), http_connections=max(http, 1))


def _threads(settings: Settings, cores: int, left: int, models: int) -> Iterator[tuple[str, int, int]]:
    """Yield settings that cost threads, with their values and what is left for each.

    The fewest go to those that may block; a model has its workers, those of ``caller_runs``, and the runtime's.
    """
    blocking = settings.server.blocking_threads
    # Of the threads there are, a quarter may wait for something else than a model.
    yield "server.blocking_threads", blocking, max(1, left // 4)
    each = (left - min(blocking, max(1, left // 4))) // models
    runtime = (settings.runtime.intra_op_threads or min(cores, max_threads_per_run(models, cores))) - 1
    is_caller_runs = settings.queue.policy is Backpressure.CALLER_RUNS
    callers = settings.queue.caller_runs_limit if is_caller_runs else 0
    instances = settings.batching.instances
    if settings.runtime.intra_op_threads:
        yield "runtime.intra_op_threads", settings.runtime.intra_op_threads, max(1, each - instances - callers + 1)
    if is_caller_runs:
        yield "queue.caller_runs_limit", callers, max(1, (each - runtime) // 2)
        callers = min(callers, max(1, (each - runtime) // 2))
    yield "batching.instances", instances, max(1, each - runtime - callers)


def _with(settings: Settings, lowered: Sequence[Lowered]) -> Settings:
    for each in lowered:
        settings = _replaced(settings, each.setting.split("."), each.to)
    return settings


def _replaced(section: S, path: Sequence[str], value: int) -> S:
    """Return ``section`` with another value at ``path``; it is not validated again, as that is no mistake in it."""
    name, *below = path
    new = _replaced(getattr(section, name), below, value) if below else value
    return section.model_copy(update={name: new})


def _finite(limit: int) -> int:
    return 2**31 - 1 if limit == resource.RLIM_INFINITY else limit


def _threads_left() -> Iterator[int]:
    """Yield how many more threads each limit leaves; none where there is none. Root has none of its own."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and os.geteuid() != 0:
        yield max(0, soft - _threads_of_user(os.geteuid()))
    for folder in cgroup_directories("pids"):
        most, current = read_file(folder / "pids.max"), read_file(folder / "pids.current")
        if most is not None and current is not None and most.strip() != "max":
            yield max(0, int(most) - int(current))


def _threads_of_user(user: int) -> int:
    """Count the threads of all of a user's processes, which share one limit."""
    count = 0
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with suppress(OSError):  # it may have ended by now
                if process.stat().st_uid == user:
                    count += _entries(process / "task")
    return count


def _entries(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir())

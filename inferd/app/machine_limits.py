"""Lower settings that exceed the limits of the machine, before anything depends on them."""

import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from inferd.config.section import Section
from inferd.config.server import ServerSettings
from inferd.config.settings import Backpressure, Settings
from inferd.models.settings import max_threads_per_run
from inferd.observability.monitoring import MOST_CONNECTIONS
from inferd.runtime.resources import cgroup_directories, read_file, usable_bytes, usable_cores

#: Descriptors opened after the start: gRPC's own, reloaded models and credentials, the log.
_OWN_DESCRIPTORS = 48
#: The metrics port gets an eighth of the remaining descriptors, and more if that is few, but at most a third; gRPC and
#: HTTP share the rest.
_MONITORING_SHARE = 8
_MAX_MONITORING_SHARE = 3
_FEW_CONNECTIONS = 128

#: Threads with any settings: those in docs/architecture.md, gRPC's own and those of the span exporter.
_OWN_THREADS = 24
_OWN_THREADS_PER_CORE = 2

#: A message or queue may take a quarter of the memory: it exists as bytes, as arrays and once more in a batch.
_MEMORY_SHARE = 4

S = TypeVar("S", bound=Section)


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Resources available to this process. ``threads`` is the number it may still start; None is unlimited."""

    descriptors: int
    open_descriptors: int
    threads: int | None
    memory_bytes: int
    cores: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LoweredSetting:
    """A setting above the machine's limit, and its new value."""

    setting: str
    value: int
    new_value: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedSettings:
    """Settings within the machine's limits, the lowered ones, and the limit for connections of the metrics port."""

    settings: Settings
    lowered: tuple[LoweredSetting, ...]
    metrics_connections: int


def detect_machine() -> Machine:
    """Return the limits of this process, after raising its soft limits to the hard ones."""
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


def fit_settings(settings: Settings, machine: Machine, models: int) -> FittedSettings:
    """Lower the settings of a server with this number of ``models`` to the limits of ``machine``. Pure."""
    lowered: list[LoweredSetting] = []

    def limit(setting: str, value: int, maximum: int, reason: str) -> None:
        if value > maximum:
            lowered.append(LoweredSetting(setting=setting, value=value, new_value=maximum, reason=reason))

    spare = max(machine.descriptors - machine.open_descriptors - _OWN_DESCRIPTORS, _MAX_MONITORING_SHARE)
    few = min(_FEW_CONNECTIONS, spare // _MAX_MONITORING_SHARE)
    monitoring = max(min(MOST_CONNECTIONS, spare // _MONITORING_SHARE), few)
    reason = f"the process may open {machine.descriptors} files (ulimit -n)"
    for setting, value, maximum in _connection_limits(settings.server, spare - monitoring):
        limit(setting, value, maximum, reason)

    max_bytes = machine.memory_bytes // _MEMORY_SHARE
    reason = f"the process may use {machine.memory_bytes} bytes of memory"
    limit("server.max_message_bytes", settings.server.max_message_bytes, max_bytes, reason)
    limit("queue.max_bytes", settings.queue.max_bytes, max_bytes, reason)

    if machine.threads is not None:
        reason = f"the process may start {machine.threads} more threads (ulimit -u, pids.max)"
        remaining = machine.threads - _OWN_THREADS - _OWN_THREADS_PER_CORE * machine.cores
        for setting, value, maximum in _thread_limits(settings, machine.cores, remaining, max(models, 1)):
            limit(setting, value, maximum, reason)
    return FittedSettings(settings=_with(settings, lowered), lowered=tuple(lowered), metrics_connections=monitoring)


def _connection_limits(server: ServerSettings, maximum: int) -> Iterator[tuple[str, int, int]]:
    """Yield the settings that determine numbers of connections, of which there may be ``maximum`` in all."""
    grpc, http = server.connections.max_open, server.http.max_connections
    if server.http_host is None:
        yield "server.connections.max_open", grpc, maximum
        return
    # Each half, or what the other leaves.
    half = max(maximum // 2, 1)
    max_grpc = max(maximum - http, half)
    yield "server.connections.max_open", grpc, max_grpc
    yield "server.http.max_connections", http, max(maximum - min(grpc, max_grpc), half)


def _thread_limits(settings: Settings, cores: int, remaining: int, models: int) -> Iterator[tuple[str, int, int]]:
    """Yield the settings that determine numbers of threads, with their values and limits.

    A model has batch workers, threads of ``caller_runs``, and threads of ONNX Runtime.
    """
    blocking = settings.server.blocking_threads
    # At most a quarter of the threads may run blocking handlers.
    max_blocking = max(1, remaining // 4)
    yield "server.blocking_threads", blocking, max_blocking
    per_model = (remaining - min(blocking, max_blocking)) // models
    runtime = (settings.runtime.intra_op_threads or min(cores, max_threads_per_run(models, cores))) - 1
    is_caller_runs = settings.queue.policy is Backpressure.CALLER_RUNS
    callers = settings.queue.caller_runs_limit if is_caller_runs else 0
    instances = settings.batching.max_instances
    if settings.runtime.intra_op_threads:
        yield "runtime.intra_op_threads", settings.runtime.intra_op_threads, max(1, per_model - instances - callers + 1)
    if is_caller_runs:
        max_callers = max(1, (per_model - runtime) // 2)
        yield "queue.caller_runs_limit", callers, max_callers
        callers = min(callers, max_callers)
    yield from _instance_limits(settings, max(1, per_model - runtime - callers))


def _instance_limits(settings: Settings, maximum: int) -> Iterator[tuple[str, int, int]]:
    instances = settings.batching.instances
    if isinstance(instances, int):
        yield "batching.instances", instances, maximum
    else:
        yield "batching.instances.min", instances.min, maximum
        yield "batching.instances.max", instances.max, maximum


def _with(settings: Settings, lowered: Sequence[LoweredSetting]) -> Settings:
    for each in lowered:
        settings = _replaced(settings, each.setting.split("."), each.new_value)
    return settings


def _replaced(section: S, path: Sequence[str], value: int) -> S:
    """Return ``section`` with ``value`` at ``path``. It is not validated again, as the user made no mistake."""
    name, *below = path
    new = _replaced(getattr(section, name), below, value) if below else value
    return section.model_copy(update={name: new})


def _finite(limit: int) -> int:
    return 2**31 - 1 if limit == resource.RLIM_INFINITY else limit


def _threads_left() -> Iterator[int]:
    """Yield the number of threads that each limit leaves. RLIMIT_NPROC does not apply to root."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and os.geteuid() != 0:
        yield max(0, soft - _threads_of_user(os.geteuid()))
    for folder in cgroup_directories("pids"):
        maximum, current = read_file(folder / "pids.max"), read_file(folder / "pids.current")
        if maximum is not None and current is not None and maximum.strip() != "max":
            yield max(0, int(maximum) - int(current))


def _threads_of_user(user: int) -> int:
    """Count the threads of all processes of a user, which share one limit."""
    count = 0
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with suppress(OSError):  # it may have exited
                if process.stat().st_uid == user:
                    count += _entries(process / "task")
    return count


def _entries(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir())

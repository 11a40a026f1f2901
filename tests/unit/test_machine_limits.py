"""What is lowered where the machine is small."""

from dataclasses import replace

import pytest

from inferd.config.settings import Settings
from inferd.machine_limits import Machine, fit, this_machine

_MIB = 2**20
_LARGE = Machine(descriptors=1_000_000, open_descriptors=20, threads=None, memory_bytes=2**36, cores=8)


def _lowered(machine: Machine, models: int = 1, **settings: object) -> dict[str, tuple[int, int]]:
    fitted = fit(Settings.model_validate(settings), machine, models)
    for each in fitted.lowered:
        value: object = fitted.settings
        for name in each.setting.split("."):
            value = getattr(value, name)
        assert value == each.to < each.value
    return {each.setting: (each.value, each.to) for each in fitted.lowered}


def test_a_large_machine_holds_the_defaults() -> None:
    """Nothing is lowered, and the settings are the same object."""
    settings = Settings()
    fitted = fit(settings, _LARGE, 10)
    assert (fitted.lowered, fitted.http_connections) == ((), 128)
    assert fitted.settings is settings


@pytest.mark.parametrize("descriptors", [64, 80, 256, 1024, 4096, 20_000])
def test_connections_leave_room_for_everything_else(descriptors: int) -> None:
    """Those of both ports, what is open and what will be come to no more than there may be."""
    machine = replace(_LARGE, descriptors=descriptors)
    fitted = fit(Settings(), machine, 1)
    connections = fitted.settings.server.connections.max_open
    assert connections >= 1
    assert fitted.http_connections >= 1
    if descriptors > 100:
        assert connections + fitted.http_connections + 20 + 48 <= descriptors
    assert bool(fitted.lowered) is (descriptors <= 4096)
    if fitted.lowered:
        (told,) = fitted.lowered
        assert (told.setting, told.value, told.to) == ("server.connections.max_open", 4096, connections)
        assert f"{descriptors} files" in told.why


def test_messages_and_queues_fit_the_memory() -> None:
    """A quarter each, as what is received is there several times."""
    machine = replace(_LARGE, memory_bytes=128 * _MIB)
    assert _lowered(machine) == {
        "server.max_message_bytes": (64 * _MIB, 32 * _MIB),
        "queue.max_bytes": (256 * _MIB, 32 * _MIB),
    }
    assert _lowered(machine, server={"max_message_bytes": _MIB}, queue={"max_bytes": _MIB}) == {}


def test_threads_fit() -> None:
    """Workers of all models, and those that may block; never fewer than one of each."""
    machine = replace(_LARGE, threads=140)
    assert _lowered(machine, batching={"instances": 4}) == {}
    assert _lowered(machine, batching={"instances": 64}, models=4) == {"batching.instances": (64, 17)}
    assert _lowered(replace(_LARGE, threads=0), batching={"instances": 2}, models=3) == {
        "server.blocking_threads": (4, 1),
        "batching.instances": (2, 1),
    }


def test_threads_of_callers_and_of_the_runtime_count() -> None:
    """A third kind of thread takes room from the workers."""
    queue = {"policy": "caller_runs", "caller_runs_limit": 64}
    lowered = _lowered(replace(_LARGE, threads=100), queue=queue, batching={"instances": 64})
    assert set(lowered) == {"queue.caller_runs_limit", "batching.instances"}
    assert sum(to for _, to in lowered.values()) <= 100 - 24 - 16 - 7
    assert _lowered(replace(_LARGE, threads=100), runtime={"intra_op_threads": 256}) == {
        "runtime.intra_op_threads": (256, 56)
    }


def test_this_machine_is_one() -> None:
    """It has what the tests run with."""
    machine = this_machine()
    assert machine.descriptors > machine.open_descriptors > 0
    assert machine.threads is None or machine.threads > 0
    assert machine.memory_bytes > 0
    assert machine.cores > 0

"""Settings above the limits of the machine."""

from dataclasses import replace

import pytest

from inferd.app.machine_limits import Machine, detect_machine, fit_settings
from inferd.config.settings import Settings

_MIB = 2**20
_LARGE = Machine(descriptors=1_000_000, open_descriptors=20, threads=None, memory_bytes=2**36, cores=8)


def _lowered(machine: Machine, models: int = 1, **settings: object) -> dict[str, tuple[int, int]]:
    fitted = fit_settings(Settings.model_validate(settings), machine, models)
    for each in fitted.lowered:
        value: object = fitted.settings
        for name in each.setting.split("."):
            value = getattr(value, name)
        assert value == each.new_value < each.value
    return {each.setting: (each.value, each.new_value) for each in fitted.lowered}


def test_large_machine_keeps_the_defaults() -> None:
    """Nothing is lowered, and the settings are the same object."""
    settings = Settings()
    fitted = fit_settings(settings, _LARGE, 10)
    assert (fitted.lowered, fitted.metrics_connections) == ((), 2500)
    assert fitted.settings is settings


@pytest.mark.parametrize("descriptors", [64, 80, 256, 1024, 4096, 20_000])
def test_connections_leave_descriptors_for_the_rest(descriptors: int) -> None:
    """Connections of all ports, open files and later ones stay within the limit."""
    machine = replace(_LARGE, descriptors=descriptors)
    fitted = fit_settings(Settings(), machine, 1)
    server = fitted.settings.server
    connections = [server.connections.max_open, server.http.max_connections, fitted.metrics_connections]
    assert min(connections) >= 1
    if descriptors > 100:
        assert sum(connections) + 20 + 48 <= descriptors
    assert bool(fitted.lowered) is (descriptors <= 4096)
    names = {"server.connections.max_open": connections[0], "server.http.max_connections": connections[1]}
    for lowered in fitted.lowered:
        assert (lowered.value, lowered.new_value) == (4096, names[lowered.setting])
        assert f"{descriptors} files" in lowered.reason


def test_connections_that_a_port_does_not_need_are_for_the_other() -> None:
    """Half of them are for each of gRPC and HTTP, or all if HTTP is off."""
    machine = replace(_LARGE, descriptors=4096)
    rest = 4096 - 68 - (4096 - 68) // 8
    names = "server.connections.max_open", "server.http.max_connections"
    assert _lowered(machine) == {names[0]: (4096, rest // 2), names[1]: (4096, rest - rest // 2)}
    assert _lowered(machine, server={"http": {"max_connections": 1000}}) == {names[0]: (4096, rest - 1000)}
    assert _lowered(machine, server={"connections": {"max_open": 1000}}) == {names[1]: (4096, rest - 1000)}
    assert _lowered(machine, server={"http_port": None}) == {names[0]: (4096, rest)}


def test_messages_and_queues_fit_in_memory() -> None:
    """A quarter each, as received data exists several times."""
    machine = replace(_LARGE, memory_bytes=128 * _MIB)
    assert _lowered(machine) == {
        "server.max_message_bytes": (64 * _MIB, 32 * _MIB),
        "queue.max_bytes": (256 * _MIB, 32 * _MIB),
    }
    assert _lowered(machine, server={"max_message_bytes": _MIB}, queue={"max_bytes": _MIB}) == {}


def test_threads() -> None:
    """Workers of all models and blocking handlers; at least one of each."""
    machine = replace(_LARGE, threads=140)
    assert _lowered(machine, batching={"instances": 4}) == {}
    assert _lowered(machine, batching={"instances": 64}, models=4) == {"batching.instances": (64, 17)}
    assert _lowered(machine, batching={"instances": {"max": 64}}, models=4) == {"batching.instances.max": (64, 17)}
    assert _lowered(replace(_LARGE, threads=0), batching={"instances": 2}, models=3) == {
        "server.blocking_threads": (4, 1),
        "batching.instances": (2, 1),
    }


def test_threads_of_callers_and_of_the_runtime() -> None:
    """They reduce the number of workers."""
    queue = {"policy": "caller_runs", "caller_runs_limit": 64}
    lowered = _lowered(replace(_LARGE, threads=100), queue=queue, batching={"instances": 64})
    assert set(lowered) == {"queue.caller_runs_limit", "batching.instances"}
    assert sum(to for _, to in lowered.values()) <= 100 - 24 - 16 - 7
    assert _lowered(replace(_LARGE, threads=100), runtime={"intra_op_threads": 256}) == {
        "runtime.intra_op_threads": (256, 56)
    }


def test_detects_detect_machine() -> None:
    """Its limits allow the tests to run."""
    machine = detect_machine()
    assert machine.descriptors > machine.open_descriptors > 0
    assert machine.threads is None or machine.threads > 0
    assert machine.memory_bytes > 0
    assert machine.cores > 0

"""Counts of loads and unloads, from changes of state."""

from inferd.observability.metrics.loads import ModelLoads
from tests.fakes import FakeClock


class Loads:
    """Loads whose versions change state at times that the test sets."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.loads = ModelLoads(self.clock)

    def go(self, load: object, *states: str, after_s: float = 0.0) -> None:
        for state in states:
            self.clock.advance(after_s)
            self.loads.changed(load, "digits", state)

    @property
    def outcomes(self) -> dict[str, int]:
        return self.loads.read()["digits"].outcomes


def test_ready_load_has_its_duration() -> None:
    """From LOADING to READY, with the stages in between."""
    loads = Loads()
    loads.go("first", "loading")
    loads.go("first", "verifying", "warming", "ready", after_s=1.0)
    assert loads.outcomes == {"ready": 1, "failed": 0, "cancelled": 0}
    duration_s = loads.loads.read()["digits"].duration_s
    assert (duration_s.count, duration_s.sum) == (1, 3.0)


def test_failed_and_cancelled_loads() -> None:
    """They have no duration, and a cancelled one is no unload."""
    loads = Loads()
    loads.go("bad", "loading", "failed")
    loads.go("slow", "loading", "verifying", "unavailable")
    counts = loads.loads.read()["digits"]
    assert counts.outcomes == {"ready": 0, "failed": 1, "cancelled": 1}
    assert (counts.duration_s.count, counts.unloads) == (0, 0)


def test_unload_of_a_replaced_version() -> None:
    """A new load of the same version is READY before the old one is unloaded."""
    loads = Loads()
    loads.go("old", "loading", "ready")
    loads.go("new", "loading", "ready")
    loads.go("old", "unloading", "unavailable")
    assert loads.outcomes["ready"] == 2
    assert loads.loads.read()["digits"].unloads == 1


def test_state_that_is_seen_twice() -> None:
    """It is counted once."""
    loads = Loads()
    loads.go("first", "loading", "ready", "ready")
    loads.go("second", "loading", "failed", "failed")
    assert loads.outcomes == {"ready": 1, "failed": 1, "cancelled": 0}


def test_read_counts_do_not_change() -> None:
    """A scrape formats it while models load."""
    loads = Loads()
    loads.go("first", "loading", "ready")
    before = loads.loads.read()["digits"]
    loads.go("second", "loading", "ready")
    assert (before.outcomes["ready"], before.duration_s.count) == (1, 1)

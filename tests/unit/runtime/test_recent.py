"""Values that are measured again after a while."""

from pathlib import Path

import pytest

from inferd.runtime import resources
from inferd.runtime.recent import Recent
from inferd.runtime.resources import usable_bytes, usable_cores
from tests.fakes import FakeClock


class Counted:
    """Counts its calls, and returns their number with the arguments."""

    def __init__(self) -> None:
        self.calls = 0
        self.fails = False

    def __call__(self, *arguments: str) -> tuple[int, tuple[str, ...]]:
        self.calls += 1
        if self.fails:
            raise OSError
        return self.calls, arguments


def test_measures_once_in_a_period() -> None:
    """A value is never older than that."""
    clock, counted = FakeClock(), Counted()
    recent = Recent(counted, period_s=1.0, clock=clock)
    assert [recent("a")[0], recent("a")[0]] == [1, 1]
    clock.advance(0.99)
    assert recent("a")[0] == 1
    clock.advance(0.01)
    assert [recent("a")[0], recent("a")[0]] == [2, 2]


def test_other_arguments_are_other_values() -> None:
    """The last ones only are kept."""
    recent = Recent(Counted(), clock=FakeClock())
    assert [recent("a"), recent("b"), recent("a"), recent("a")] == [
        (1, ("a",)),
        (2, ("b",)),
        (3, ("a",)),
        (3, ("a",)),
    ]


def test_errors_are_not_kept() -> None:
    """The next call tries again."""
    counted = Counted()
    recent = Recent(counted, clock=FakeClock())
    counted.fails = True
    with pytest.raises(OSError):
        recent()
    counted.fails = False
    assert recent() == (2, ())


def test_loads_of_models_do_not_read_cgroups_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one load asks for several times is read once, whatever the kind of cgroup."""
    for recent in (resources._recent_quotas, resources._recent_memory_limit):
        monkeypatch.setattr(recent, "_clock", lambda: 0.0)
        monkeypatch.setattr(recent, "_last", None)
    read: list[Path] = []
    original = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, *given: (read.append(path), original(path, *given))[1])
    found = usable_cores(), usable_bytes()
    before = len(read)
    assert before
    assert (usable_cores(), usable_bytes()) == found
    assert len(read) == before

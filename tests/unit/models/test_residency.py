"""Which models leave for a load."""

import pytest

from inferd.models.residency import Claim, Memory, Residency, Resident

NOW = 1000.0
RULES = Residency(budget=Memory(100, 1000), min_residence_s=1.0)


def resident(name: str, host: int, *, device: int = 0, used_at: float = 0.0, **facts) -> Resident:
    defaults = {"loaded_at": 0.0, "load_s": 0.1, "is_busy": False, "is_evictable": True}
    return Resident(name=name, memory=Memory(host, device), last_used_at=used_at, **{**defaults, **facts})


def claim(host: int, *, device: int = 0, least: int = 0, waited_s: float = 0.0, name: str = "new") -> Claim:
    return Claim(name=name, memory=Memory(host, device), least=Memory(least), since=NOW - waited_s)


def decide(wanted: Claim, *residents: Resident, reserved: int = 0):
    return RULES.decide(wanted, residents, Memory(reserved), NOW)


def test_begins_where_there_is_memory():
    """What loads that go on may take counts too."""
    assert decide(claim(40), resident("a", 60)).begins
    assert not decide(claim(40), resident("a", 50), reserved=11).begins


def test_least_recently_used_leaves_first():
    """As many as are needed."""
    models = [resident("a", 30, used_at=3), resident("b", 30, used_at=1), resident("c", 30, used_at=2)]
    assert list(decide(claim(30), *models).evicted) == ["b"]
    assert list(decide(claim(50), *models).evicted) == ["b", "c"]


def test_none_leaves_in_vain():
    """Neither if it would not be enough, nor if another one makes its part unnecessary."""
    busy = resident("busy", 60, is_busy=True)
    assert decide(claim(50), busy, resident("a", 30)) == decide(claim(50), busy)
    assert list(decide(claim(60), resident("small", 10, used_at=1), resident("large", 90, used_at=2)).evicted) == [
        "large"
    ]


@pytest.mark.parametrize(
    "facts",
    [
        {"is_busy": True},
        {"is_held": True},
        {"loaded_at": NOW - 0.5},
        {"loaded_at": NOW - 3.0, "load_s": 2.0},
    ],
    ids=["busy", "held", "young", "young-for-its-load"],
)
def test_models_that_stay(facts):
    """A model in use, one that is being loaded or unloaded, and one that has just come."""
    decision = decide(claim(40), resident("a", 70, **facts))
    assert not decision.begins
    assert not decision.evicted


def test_waits_for_what_leaves_already():
    """No other one has to."""
    decision = decide(claim(40), resident("gone", 40, is_unloading=True), resident("a", 50))
    assert not decision.begins
    assert not decision.evicted


def test_busy_models_leave_when_they_stay_in_use_for_long():
    """After twice the time that they stay at least, the one that was loaded first."""
    models = [resident("b", 50, is_busy=True, loaded_at=2.0), resident("a", 50, is_busy=True, loaded_at=1.0)]
    assert not decide(claim(50, waited_s=1.9), *models).evicted
    assert list(decide(claim(50, waited_s=2.0), *models).evicted) == ["a"]


def test_refuses_a_load_that_can_never_be():
    """If it is certain to be too large for what may leave; otherwise it is tried with the rest gone."""
    pinned = resident("pinned", 30, is_evictable=False)
    assert decide(claim(90, least=71), pinned).most == Memory(70, 1000)
    assert decide(claim(90), pinned).begins
    assert list(decide(claim(90), pinned, resident("a", 10)).evicted) == ["a"]
    assert decide(claim(10), resident("pinned", 100, is_evictable=False)).most == Memory(0, 1000)


def test_no_model_leaves_for_itself():
    """As for a new version of it."""
    assert decide(claim(50, least=50, name="a"), resident("a", 60)).most == Memory(40, 1000)


def test_devices_have_a_budget_of_their_own():
    """A model that needs none of it is not held up by it."""
    full = resident("full", 10, device=1000)
    assert list(decide(claim(10, device=10), full).evicted) == ["full"]
    assert decide(claim(10), full).begins
    assert decide(claim(10), resident("over", 10, device=2000, is_evictable=False)).begins

"""When arenas of idle models are shrunk."""

from dataclasses import dataclass, field

import pytest

from inferd.config.settings import ModelSettings
from inferd.models.idle_memory import IdleMemory
from inferd.models.loaded import LoadedModel
from inferd.models.version import ModelVersion
from inferd.runtime.errors import RunFailedError
from tests.fakes import FakeClock

AFTER_S = 5.0


@dataclass
class Batcher:
    """What is asked of a batcher."""

    last_dispatch_at: float = 0.0
    unanswered_requests: int = 0


@dataclass
class Session:
    """A session whose last batch had several rows."""

    has_spare_memory: bool = True
    error: Exception | None = None
    shrunk: int = 0

    def try_out(self) -> bool:
        self.shrunk += 1
        self.has_spare_memory = False
        if self.error is not None:
            raise self.error
        return True


@dataclass
class Models:
    """Loaded versions, and how often freed memory was returned to the system."""

    clock: FakeClock = field(default_factory=FakeClock)
    loaded: dict[ModelVersion, LoadedModel] = field(default_factory=dict)
    trims: int = 0

    def add(self, session: Session, after_s: float = AFTER_S) -> Batcher:
        settings = ModelSettings.model_validate({"runtime": {"shrink_after_s": after_s}})
        version = ModelVersion(name=f"m{len(self.loaded)}", version="1", settings=settings)
        batcher = Batcher(last_dispatch_at=self.clock())
        self.loaded[version] = LoadedModel(session=session, batcher=batcher, loaded_at=self.clock())
        return batcher

    def idle_memory(self) -> IdleMemory:
        return IdleMemory(lambda: dict(self.loaded), self.clock, self._trim)

    def _trim(self) -> None:
        self.trims += 1


@pytest.fixture
def models():
    return Models()


def test_shrinks_once_when_idle_for_long_enough(models):
    """Counted from the last batch."""
    session, idle = Session(), models.idle_memory()
    batcher = models.add(session)
    models.clock.advance(AFTER_S - 1)
    batcher.last_dispatch_at = models.clock()
    models.clock.advance(AFTER_S - 1)
    idle.shrink_idle()
    assert (session.shrunk, models.trims) == (0, 0)
    models.clock.advance(1)
    for _ in range(3):
        idle.shrink_idle()
    assert (session.shrunk, models.trims) == (1, 1)


def test_counts_from_the_load_without_a_batch(models):
    """What was left by its runs goes too."""
    session = Session()
    models.clock.advance(100)
    models.add(session).last_dispatch_at = 0.0
    models.idle_memory().shrink_idle()
    assert session.shrunk == 0
    models.clock.advance(AFTER_S)
    models.idle_memory().shrink_idle()
    assert session.shrunk == 1


def test_leaves_others_alone(models):
    """Those with requests, with runs of one row only, and those that are to keep their memory."""
    busy, small, kept = Session(), Session(has_spare_memory=False), Session()
    models.add(busy).unanswered_requests = 1
    models.add(small)
    models.add(kept, after_s=0)
    models.clock.advance(100)
    models.idle_memory().shrink_idle()
    assert [session.shrunk for session in (busy, small, kept)] == [0, 0, 0]


def test_one_that_fails_hinders_no_other(models):
    """It is not tried again until it has run."""
    failing, other = Session(error=RunFailedError(MemoryError("no room"))), Session()
    models.add(failing)
    models.add(other)
    models.clock.advance(AFTER_S)
    for _ in range(2):
        models.idle_memory().shrink_idle()
    assert (failing.shrunk, other.shrunk) == (1, 1)


def test_frees_at_once_for_another_model_that_is_out_of_memory(models):
    """What is idle now, however short; models keep what they are told to keep, and those in use do."""
    idle, sessions = models.idle_memory(), [Session() for _ in range(4)]
    models.add(sessions[0])
    models.add(sessions[1]).unanswered_requests = 1
    models.add(sessions[2], after_s=0.0)
    models.add(sessions[3]).last_dispatch_at = models.clock()
    assert idle.free()
    assert [session.shrunk for session in sessions] == [1, 0, 0, 1]
    assert models.trims == 1
    assert not idle.free()
    assert models.trims == 1

"""A manager of real directories with a loader that does as it is told, and what was asked of it."""

import threading
from collections.abc import Callable
from pathlib import Path

from inferd.config.settings import Settings
from inferd.errors import ServingError
from inferd.models.catalog import Catalog
from inferd.models.load_meter import Measured
from inferd.models.loaded import LoadedModel
from inferd.models.manager import ModelManager
from inferd.models.model_source import ModelSource
from inferd.models.registry import ModelRegistry
from inferd.models.residency import Memory
from inferd.models.settings import read_model_settings
from inferd.models.sizes import ModelSizes, size_key
from inferd.models.states import ModelState
from inferd.models.version import ModelVersion
from inferd.runtime.errors import ModelLoadError
from tests.fakes import FakeClock
from tests.patience import PATIENCE_S
from tests.unit.models.managers import manager_of
from tests.unit.models.model_files import touch


class FakeSession:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


class FakeBatcher:
    why_broken = ""
    max_rows = 64

    def __init__(self) -> None:
        self.unanswered_requests = 0
        self.last_dispatch_at = 0.0
        self.finish = threading.Event()
        self.finish.set()
        self.started = self.stopped = False

    def start(self) -> None:
        self.started = True

    def stop(self, timeout_s: float) -> bool:
        self.stopped = True
        return self.finish.wait(PATIENCE_S)


class ScriptedLoader:
    """Loads everything, except files that contain the reason for a failure; keeps to a gate if it has one."""

    def __init__(self, settings: Settings, clock: FakeClock) -> None:
        self._settings = settings
        self.gates: dict[str, threading.Event] = {}
        self.loading: dict[str, threading.Event] = {}
        self.loads: list[str] = []
        self.sizes = ModelSizes()
        self.clock = clock
        #: Bytes that a version takes.
        self.memory: dict[str, int] = {}
        self.loaded: dict[str, list[LoadedModel]] = {}

    def hold(self, key: str) -> threading.Event:
        """Hold loads of ``NAME/VERSION`` until the returned event is set."""
        self.loading[key] = threading.Event()
        return self.gates.setdefault(key, threading.Event())

    def pause(self) -> None:
        pass

    def load(self, source: ModelSource, progress) -> LoadedModel:
        key = f"{source.name}/{source.version}"
        self.loads.append(key)
        progress.set_settings(read_model_settings(self._settings, source))
        if key in self.gates:
            self.loading[key].set()
            assert self.gates[key].wait(PATIENCE_S)
        if reason := source.path.read_text():
            raise ModelLoadError(reason)
        progress.advance(ModelState.VERIFYING)
        progress.advance(ModelState.WARMING)
        size = Memory(self.memory.get(key, 0))
        measured = Measured(steady=size, peak=size, is_alone=True, load_s=0.0)
        recorded_as = size_key(source, read_model_settings(self._settings, source))
        self.sizes.record(recorded_as, measured)
        made = LoadedModel(
            session=FakeSession(),
            batcher=FakeBatcher(),
            memory=size,
            measured=measured,
            least_peak=self.sizes.expected(recorded_as).least_peak,
            loaded_at=self.clock(),
        )
        self.loaded.setdefault(key, []).append(made)
        return made


class Fixture:
    def __init__(self, root: Path, **repository: object) -> None:
        self.root = root
        self.settings = Settings.model_validate(
            {"repository": {"mode": "explicit", **repository}, "runtime": {"verdict_cache": None}}
        )
        self.registry = ModelRegistry()
        self.clock = FakeClock()
        self.loader = ScriptedLoader(self.settings, self.clock)
        self.history: list[tuple[str, ModelState]] = []
        self.gone: dict[str, threading.Event] = {}
        self.settled: list[Callable[[], None]] = []
        self.settle_at_once = True
        self.settling = threading.Event()
        self.demands: dict[str, Pending] = {}
        self.waiting: dict[str, int] = {}
        self.manager: ModelManager = manager_of(
            self.settings,
            self.registry,
            clock=self.clock,
            on_demand_ended=lambda name, error: self.demands.pop(name).done(error),
            waiting=lambda name: self.waiting.get(name, 0),
            sizes=self.loader.sizes,
            paths=[root],
            loader=self.loader,
            settle=self._settle,
            on_state=self._on_state,
        )
        self.catalog = Catalog(self.settings, [root])

    def _settle(self, settled: Callable[[], None]) -> None:
        if self.settle_at_once:
            settled()
        else:
            self.settled.append(settled)
            self.settling.set()

    def _on_state(self, version: ModelVersion) -> None:
        key = f"{version.name}/{version.version}"
        self.history.append((key, version.state))
        if version.state is ModelState.UNAVAILABLE:
            self.gone.setdefault(key, threading.Event()).set()

    def start(self) -> "Fixture":
        loaded = threading.Event()
        self.manager.start(self.catalog.scan(), loaded.set)
        assert loaded.wait(PATIENCE_S)
        return self

    def begin_load(self, name: str, **options: object) -> "Pending":
        pending = Pending()
        pending.cancel = self.manager.load(name, on_done=pending.done, **options)
        return pending

    def load(self, name: str, **options: object) -> ServingError | None:
        return self.begin_load(name, **options).outcome()

    def begin_unload(self, name: str, version: str = "") -> "Pending":
        pending = Pending()
        self.manager.unload(name, version=version, on_done=pending.done)
        return pending

    def unload(self, name: str, version: str = "") -> ServingError | None:
        return self.begin_unload(name, version).outcome()

    def begin_demand(self, name: str) -> "Pending":
        self.demands[name] = pending = Pending()
        self.manager.load_on_demand(name)
        return pending

    def demand(self, name: str) -> ServingError | None:
        return self.begin_demand(name).outcome()

    def states(self) -> dict[str, ModelState]:
        return {f"{each.name}/{each.version}": each.state for each in self.registry.all()}

    def wait_gone(self, key: str) -> None:
        assert self.gone.setdefault(key, threading.Event()).wait(PATIENCE_S)

    def touch(self, *names: str) -> None:
        touch(self.root, *names)


class Pending:
    """An operation that was asked for."""

    def __init__(self) -> None:
        self.outcomes: list[ServingError | None] = []
        self._done = threading.Event()
        self.cancel: Callable[[], None] = lambda: None

    def done(self, error: ServingError | None) -> None:
        self.outcomes.append(error)
        self._done.set()

    def outcome(self) -> ServingError | None:
        assert self._done.wait(PATIENCE_S)
        (only,) = self.outcomes
        return only

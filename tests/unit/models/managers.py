"""Managers with fakes of what is around them."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from inferd.batching.ports import Clock
from inferd.config.settings import Settings
from inferd.errors import ServingError
from inferd.models.catalog import Catalog
from inferd.models.lifecycle import Lifecycle
from inferd.models.load_meter import LoadMeter
from inferd.models.load_pool import LoadPool
from inferd.models.loader import BatcherParts, VersionLoader
from inferd.models.manager import ModelManager
from inferd.models.registry import ModelRegistry
from inferd.models.router import Router
from inferd.models.shadow import Shadow, ShadowCounts
from inferd.models.sizes import ModelSizes
from inferd.models.version import ModelVersion
from inferd.observability.metrics.models import ModelStats
from tests.fakes import FakeClock, ManualPollThread, RecordingStats


def manager_of(
    settings: Settings,
    registry: ModelRegistry,
    *,
    paths: Sequence[Path] = (),
    clock: Clock | None = None,
    loader: VersionLoader | None = None,
    settle: Callable[[Callable[[], None]], None] = lambda settled: settled(),
    stats_for: Callable[[str, str], ModelStats] = lambda *_: RecordingStats(),
    on_state: Callable[[ModelVersion], None] = lambda _: None,
    on_demand_ended: Callable[[str, ServingError | None], None] = lambda *_: None,
    waiting: Callable[[str], int] = lambda _: 0,
    sizes: ModelSizes | None = None,
) -> ModelManager:
    """Return a manager of the models in ``paths``; requests are settled at once."""
    clock = clock or FakeClock()
    parts = BatcherParts(
        clock=clock, poll_thread=ManualPollThread(clock), alarm=ManualPollThread(clock), stats_for=stats_for
    )
    meter, sizes = LoadMeter(clock), sizes or ModelSizes()
    lifecycle = Lifecycle(
        registry=registry,
        loader=loader
        or VersionLoader(settings, parts, probe=None, versions=lambda: len(registry.all()), meter=meter, sizes=sizes),
        pool=LoadPool(settings.repository.parallel_loads),
        clock=clock,
        settle=settle,
        on_state=on_state,
        meter=meter,
    )
    router = Router(registry, partial(Shadow, counts=ShadowCounts(), compare=lambda work: work() is None))
    return ModelManager(
        settings=settings,
        catalog=Catalog(settings, paths),
        registry=registry,
        lifecycle=lifecycle,
        router=router,
        clock=clock,
        sizes=sizes,
        on_demand_ended=on_demand_ended,
        waiting=waiting,
    )

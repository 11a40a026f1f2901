"""What both baselines share: models loaded as inferd loads them, and the handlers of its unary methods."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import grpc

from inferd.api.services import InferenceServices, method_names
from inferd.api.status import StatusTable
from inferd.api.wire_scanner import DEFAULT_LIMITS
from inferd.batching.ports import PollThread
from inferd.config.loading import load_settings
from inferd.models.catalog import Catalog
from inferd.models.lifecycle import Lifecycle
from inferd.models.load_meter import LoadMeter
from inferd.models.load_pool import LoadPool
from inferd.models.loader import BatcherParts, VersionLoader
from inferd.models.manager import ModelManager
from inferd.models.on_demand import OnDemandLoads, has_room
from inferd.models.registry import ModelRegistry
from inferd.models.router import Router
from inferd.models.shadow import ComparisonThread, Shadow, ShadowCounts
from inferd.models.sizes import ModelSizes
from inferd.observability.metrics.registry import Metrics, new_registry
from inferd.observability.recorder import CallRecorder
from inferd.rpc.interfaces import UnaryHandler
from inferd.runtime.run_timeout import Watchdog

#: Converts a handler of inferd to one of the stock server.
Adapt = Callable[[UnaryHandler], "grpc.RpcMethodHandler[Any, Any]"]

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    ("grpc.so_reuseport", 0),
)


@dataclass(frozen=True, slots=True)
class Arguments:
    """The command line: a model's directory, and the port."""

    folder: Path
    port: int

    @classmethod
    def read(cls) -> "Arguments":
        """Parse the command line."""
        return cls(Path(sys.argv[1]), int(sys.argv[2]))


class Handlers(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """inferd's unary methods for a stock server; stands in for the server that `InferenceServices` adds itself to."""

    def __init__(self, poll_thread: PollThread, adapt: Adapt) -> None:
        self.call_soon = poll_thread.call_soon
        self._adapt = cache(adapt)
        self._inner: list[grpc.GenericRpcHandler[Any, Any]] = []

    def add_generic_rpc_handlers(self, handlers: "list[grpc.GenericRpcHandler[Any, Any]]") -> None:
        """See `grpc.Server`."""
        self._inner += handlers

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Return the handler of a unary method, else None."""
        for inner in self._inner:
            found = inner.service(details)
            if found is not None and not found.request_streaming:
                return self._adapt(cast("Any", found).callback)
        return None


def load(folder: Path, poll_thread: PollThread, adapt: Adapt, on_loaded: Callable[[], None]) -> Handlers:
    """Start loading the model, with settings from the environment, and return the handlers that serve it."""
    registry = ModelRegistry()
    metrics = Metrics(new_registry(), CallRecorder(), methods=method_names())
    settings = load_settings(config_file=None, flags={})
    watchdog = Watchdog("run-watchdog")
    watchdog.start()
    parts = BatcherParts(clock=time.monotonic, poll_thread=poll_thread, alarm=watchdog, stats_for=metrics.stats_for)
    meter, sizes = LoadMeter(), ModelSizes()
    lifecycle = Lifecycle(
        registry=registry,
        loader=VersionLoader(settings, parts, probe=None, versions=lambda: 1, meter=meter, sizes=sizes),
        pool=LoadPool(1),
        clock=time.monotonic,
        settle=lambda settled: settled(),
        on_state=lambda _: None,
        meter=meter,
    )
    catalog = Catalog(settings, [folder])
    router = Router(registry, partial(Shadow, counts=ShadowCounts(), compare=ComparisonThread()))
    manager = ModelManager(
        settings=settings,
        catalog=catalog,
        registry=registry,
        lifecycle=lifecycle,
        router=router,
        clock=time.monotonic,
        sizes=sizes,
    )
    loads = OnDemandLoads(
        request_load=manager.load_on_demand,
        expected_s=manager.expected_load_s,
        has_room=partial(has_room, registry),
        poll_thread=poll_thread,
        clock=time.monotonic,
        max_waiting=1,
    )
    services = InferenceServices(
        registry=registry,
        manager=manager,
        router=router,
        loads=loads,
        statuses=StatusTable(grpc.StatusCode[settings.api.overload_status]),
        limits=DEFAULT_LIMITS,
        is_ready=lambda: True,
    )
    handlers = Handlers(poll_thread, adapt)
    services.add_to(cast("Any", handlers))
    manager.start(catalog.scan(), on_loaded)
    return handlers

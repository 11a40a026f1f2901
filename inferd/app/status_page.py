"""Build the status page of a server."""

import time
from collections.abc import Callable
from functools import partial

from inferd.api.status import StatusTable
from inferd.app.served_models import ServedModels
from inferd.app.telemetry import Telemetry
from inferd.config.settings import Settings
from inferd.models.registry import ModelRegistry
from inferd.page.handlers import StatusPage
from inferd.page.sampler import CounterSources
from inferd.rpc import Server
from inferd.runtime.resources import resident_bytes
from inferd.security.authorization.methods import UNARY_METHODS, MethodKind, methods_of


def build_status_page(
    settings: Settings,
    registry: ModelRegistry,
    models: ServedModels,
    telemetry: Telemetry,
    server: Server,
    statuses: StatusTable,
    is_ready: Callable[[], bool],
) -> StatusPage | None:
    """Return the page, not started; None if it, or HTTP, is switched off."""
    if not settings.server.http.status_page or settings.server.http_host is None:
        return None
    # As in the labels of the metrics.
    inference = frozenset(method.removeprefix("/") for method in methods_of(MethodKind.INFER) & UNARY_METHODS)
    return StatusPage(
        registry=registry,
        router=models.router,
        statuses=statuses,
        sources=CounterSources(
            activity=telemetry.metrics.activity,
            answered=partial(telemetry.metrics.requests.answered, inference),
            models=telemetry.model_samples,
            cpu_s=time.process_time,
            resident_bytes=resident_bytes,
            usage=lambda: server.usage,
            open_calls=lambda: server.live_calls,
            gpus=telemetry.gpus.samples,
        ),
        control=settings.repository.mode,
        is_ready=is_ready,
    )

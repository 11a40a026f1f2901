"""The composition root: builds all components, starts the server and shuts it down."""

import logging
import sys
import time
from collections.abc import Callable, Sequence

import grpc
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health_pb2

from inferd import health_check
from inferd.addresses import is_unix_socket
from inferd.api.reflection import add_reflection
from inferd.api.services import INFERENCE_SERVICE_NAMES, InferenceServices
from inferd.api.status import StatusTable
from inferd.api.wire_scanner import MessageLimits
from inferd.app import listeners
from inferd.app.http_inference import HttpInference
from inferd.app.machine_limits import LoweredSetting
from inferd.app.readiness import Readiness
from inferd.app.served_models import ServedModels
from inferd.app.shutdown_watchdog import ShutdownWatchdog
from inferd.app.status_page import build_status_page
from inferd.app.telemetry import Telemetry, build_telemetry
from inferd.config.logging import LogSettings
from inferd.config.settings import Settings
from inferd.http.self_test import check_aiohttp
from inferd.http.server import HttpServer
from inferd.models.model_source import ModelSource
from inferd.models.registry import ModelRegistry
from inferd.models.remote import RemoteRepositories
from inferd.models.version import ModelVersion
from inferd.observability.metrics.registry import MetricSources
from inferd.observability.monitoring import MOST_CONNECTIONS, monitoring_server
from inferd.observability.trailers import TrailersInterceptor
from inferd.page.handlers import switched_off
from inferd.rpc import MemoryMeter, Server
from inferd.rpc.channel_options import channel_options
from inferd.rpc.self_test import check_grpcio
from inferd.runtime.resources import request_budget, resident_bytes, trim_heap, usable_bytes
from inferd.security.setup import Security
from inferd.security.tls.transport import Transport

_log = logging.getLogger("inferd.app")

#: How long calls may wait to be read while others are rejected for overload; a queue is full when it takes as long.
_MOST_UNREAD_S = 0.1

_HEALTH_SERVICE_NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

#: Python's switch interval. The poll thread takes the interpreter lock about twenty times for a health check; next to a
#: thread that parses a large message, the default of 5 ms would add more than 100 ms.
_SWITCH_INTERVAL_S = 0.001

#: Number of messages of the maximum size that should fit into the memory budget: a received message exists twice, and
#: its arrays may be copied once more for the run.
_BUDGET_MESSAGES = 4

#: Time after the drain grace for cancelled calls to end, and after that for workers and sessions.
_CANCELLED_TIMEOUT_S = 1.0
_UNLOAD_TIMEOUT_S = 2.0
#: Time after the drain grace for the whole shutdown; then the process exits, whatever hangs.
_WATCHDOG_S = 3.4


class Application:
    """One server process. The main thread calls each method once, in the order of their definition.

    Invariants: health reports SERVING at the earliest from `open`, when every model is loaded or has failed, until
    `drain`; sessions are closed only after the last call has ended.
    """

    def __init__(
        self,
        settings: Settings,
        sources: Sequence[ModelSource],
        *,
        skipped: Sequence[str] = (),
        remote: RemoteRepositories | None = None,
        lowered: Sequence[LoweredSetting] = (),
        metrics_connections: int = MOST_CONNECTIONS,
    ) -> None:
        """Build a server. ``settings`` are within the machine's limits; `start` logs what was ``lowered`` for that.

        It also logs which entries were ``skipped`` in the search for models. ``remote`` has those in remote storage.
        """
        self._settings = settings
        self._warnings = [
            *(f"lowered {each.setting} from {each.value} to {each.new_value}: {each.reason}" for each in lowered),
            *skipped,
        ]
        registry = ModelRegistry(is_complete=False)
        statuses = StatusTable(grpc.StatusCode[settings.api.overload_status])
        self._telemetry = build_telemetry(settings, registry)
        self._security = Security(settings.security)
        self._transport = Transport(settings, self._security.files)
        self._server = _build_server(settings, self._telemetry, self._security, statuses)
        self._readiness = Readiness(
            settings, registry, lambda: self._server.poll_lag_s, found={source.name for source in sources}
        )
        self._models = ServedModels(
            settings,
            sources,
            registry,
            self._server,
            stats_for=self._telemetry.metrics.stats_for,
            generation_stats_for=self._telemetry.metrics.generation_stats_for,
            settle=self._settle,
            on_state=self._on_state,
            on_health=self._readiness.on_state,
            remote=remote,
        )
        self._services = self._build_services(registry, statuses)
        self._page = build_status_page(
            settings, registry, self._models, self._telemetry, self._server, statuses, self._readiness.is_ready
        )
        self._monitoring = self._build_monitoring(metrics_connections)
        self._http: HttpInference | None = None
        self._grpc_port = 0

    def _build_services(self, registry: ModelRegistry, statuses: StatusTable) -> InferenceServices:
        api = self._settings.api
        return InferenceServices(
            registry=registry,
            manager=self._models.manager,
            router=self._models.router,
            loads=self._models.loads,
            statuses=statuses,
            limits=MessageLimits(requests=api.max_message_requests, elements=api.max_elements),
            is_ready=self._readiness.is_ready,
        )

    def _build_monitoring(self, max_connections: int) -> HttpServer:
        return monitoring_server(
            host=self._settings.server.monitoring_host,
            port=self._settings.server.metrics_port,
            registry=self._telemetry.registry,
            readiness=self._readiness.readiness,
            liveness=self._readiness.liveness,
            tls=self._transport.metrics_context,
            max_connections=max_connections,
        )

    def _build_http(self) -> HttpInference | None:
        server = self._settings.server
        if server.http_host is None:
            return None
        page = switched_off() if self._page is None else self._page.operations()
        operations = [*self._services.operations(server.max_message_bytes), *page]
        return HttpInference(
            server,
            server.http_host,
            self._server,
            operations,
            self._transport.http_context,
            authenticates=self._settings.security.authenticates,
        )

    def start(self) -> None:
        """Bind all ports and answer on them; health reports NOT_SERVING for now.

        Raises `ListenError`, or `BadFileError` naming a file of credentials, rules or certificates.
        """
        server = self._settings.server
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        self._telemetry.log.start()
        self._telemetry.recorder.start()
        self._log_warnings()
        self._transport.start()
        self._security.start()
        self._add_services()
        self._http = self._build_http()
        self._telemetry.metrics.set_sources(self._metric_sources())
        with listeners.named(listeners.grpc_settings(server)):
            self._grpc_port = self._transport.listen(self._server)
        self._telemetry.tracing.start()
        self._telemetry.gpus.start()
        self._models.start()
        with listeners.named(listeners.metrics_settings(server)):
            self._monitoring.start()
        if self._http is not None:
            with listeners.named(listeners.http_settings(server)):
                self._http.start()
        if self._page is not None:
            self._page.start()
        self._readiness.start()
        check_grpcio()
        check_aiohttp()
        self._server.start()
        _log.info("listening", extra=self._addresses())

    def _log_warnings(self) -> None:
        for warning in self._warnings:
            _log.warning("%s", warning)

    def _add_services(self) -> None:
        server, health = self._settings.server, self._readiness.health
        self._services.add_to(self._server)
        self._server.add_registered_method_handlers(_HEALTH_SERVICE_NAME, health.handlers())
        if server.channelz:
            channelz.add_channelz_servicer(self._server)
        if server.reflection:
            add_reflection(self._server, (*INFERENCE_SERVICE_NAMES, _HEALTH_SERVICE_NAME))

    def _metric_sources(self) -> MetricSources:
        return MetricSources(
            models=self._telemetry.model_samples,
            run_costs=self._telemetry.run_costs,
            loads=self._telemetry.model_loads.read,
            residency=self._models.residency,
            routing=self._models.router.shares,
            shadows=self._models.shadow_counts.read,
            inflight_requests=lambda: self._server.live_calls,
            server_usage=lambda: self._server.usage,
            poll_lag_s=lambda: self._server.poll_lag_s,
            log_lines_dropped=lambda: self._telemetry.log.writer.dropped,
            spans_dropped=lambda: self._telemetry.tracing.dropped,
            gpus=self._telemetry.gpus.samples,
            certificate_expiry=self._transport.certificate_expiry,
            certificate_lifetimes_s=self._transport.certificate_lifetimes_s,
            file_reload_failures=self._security.failures,
            quota_rejections=self._security.quota_rejections,
            jwks_age_s=self._security.jwks_age_s,
            http_refused=lambda: {} if self._http is None else self._http.refused(),
            remote=None if self._models.remote is None else self._models.remote.read,
        )

    @property
    def grpc_address(self) -> str:
        """The address of gRPC, with the actual port."""
        server = self._settings.server
        return server.host if is_unix_socket(server.host) else f"{server.host}:{self._grpc_port}"

    @property
    def metrics_address(self) -> str:
        """The address of metrics and probes, with the actual port."""
        return f"{self._settings.server.monitoring_host}:{self._monitoring.port}"

    def _addresses(self) -> dict[str, str]:
        """Return the addresses of all ports, by name."""
        http = {} if self._http is None else {"http": self._http.address}
        return {"grpc": self.grpc_address, **http, "metrics": self.metrics_address}

    def change_log(self, settings: LogSettings) -> None:
        """Apply other levels and ``access``. May be called from any thread; does nothing before `start`."""
        if self._telemetry.log.change(settings):
            self._telemetry.access_log.change(settings)

    def load(self, on_loaded: Callable[[], None]) -> None:
        """Start loading all models; another thread calls ``on_loaded`` when each is loaded or has failed."""
        self._models.load(on_loaded)

    def open(self, examples: Callable[[str], Sequence[str]]) -> bool:
        """Report SERVING if the models allow it, now or later. Returns False if the server should exit.

        ``examples`` returns commands to try, for the address of gRPC; they are logged.
        """
        failure = self._readiness.why_exit()
        if failure:
            _log.error("%s", failure)
            return False
        self._limit_memory()
        missing = self._readiness.missing()
        if missing:
            _log.warning("waiting for models (repository.readiness)", extra={"missing": missing})
        self._readiness.open(on_ready=lambda: self._log_ready(examples))
        return True

    def _log_ready(self, examples: Callable[[str], Sequence[str]]) -> None:
        _log.info(
            "ready",
            extra={
                **self._addresses(),
                "models": self._models.ready_names(),
                "try": examples(self.grpc_address),
            },
        )

    def _settle(self, settled: Callable[[], None]) -> None:
        """Call ``settled`` once every request whose model has been looked up is in its queue."""
        self._services.settle(settled)

    def _on_state(self, version: ModelVersion) -> None:
        """Count and report a change of state of a version; in the thread that changes it."""
        self._telemetry.model_loads.changed(version, version.name, version.state.value)
        self._readiness.on_state()

    def _limit_memory(self) -> None:
        """Set the memory budget of requests, now that the models are loaded."""
        server = self._settings.server
        budget = server.memory_budget_bytes
        if budget is None:
            # Models that are loaded later take what their budget has left.
            models = max(self._settings.repository.memory_budget_bytes or 0, self._models.manager.memory_bytes())
            budget = request_budget(self._resident_without_models() + models, usable_bytes())
        if budget < _BUDGET_MESSAGES * server.max_message_bytes:
            _log.warning(
                "the memory budget is low for server.max_message_bytes",
                extra={"budget_bytes": budget, "max_message_bytes": server.max_message_bytes},
            )
        self._server.limit_memory(budget, self._memory_meter())

    def _memory_meter(self) -> MemoryMeter:
        return MemoryMeter(
            resident=self._resident_without_models,
            give_back=trim_heap,
            is_steady=self._models.manager.memory_is_steady,
        )

    def _resident_without_models(self) -> int:
        return resident_bytes() - self._models.manager.resident_bytes()

    def drain(self) -> bool:
        """Shut down: finish the admitted requests within the grace period. Returns True if nothing was cancelled."""
        server = self._settings.server
        self._readiness.drain()
        _log.info("draining", extra={"delay_s": server.drain_delay_s, "grace_s": server.drain_grace_s})
        watchdog = ShutdownWatchdog(describe=self._unfinished, flush=self._telemetry.log.stop)
        watchdog.arm(server.drain_delay_s + server.drain_grace_s + _WATCHDOG_S)
        time.sleep(server.drain_delay_s)
        deadline = time.monotonic() + server.drain_grace_s
        self._stop_server()
        in_time = time.monotonic() < deadline
        unloaded = self._models.unload(max(deadline - time.monotonic(), _UNLOAD_TIMEOUT_S))
        self._stop_components()
        _log.info("stopped", extra={"in_time": in_time and unloaded})
        self._telemetry.log.stop()
        watchdog.disarm()
        return in_time and unloaded

    def _stop_server(self) -> None:
        """Let open calls finish within the grace period, and cancel the others."""
        grace_s = self._settings.server.drain_grace_s
        self._readiness.health.end_watches()
        self._server.poll_loop.call_at(time.monotonic(), self._services.drain)
        deadline = time.monotonic() + grace_s
        stopped = self._server.stop(grace_s)
        if self._http is not None:
            self._http.drain()
            self._http.wait_drained(grace_s)
        if not stopped.wait(deadline + _CANCELLED_TIMEOUT_S - time.monotonic()):
            _log.error("cancelled calls have not ended")
        # A late poll thread does not matter any more.
        self._readiness.stop()

    def _stop_components(self) -> None:
        self._services.stop(_UNLOAD_TIMEOUT_S)
        if self._page is not None:
            self._page.stop(_UNLOAD_TIMEOUT_S)
        if self._http is not None:
            self._http.stop()
        self._monitoring.stop()
        self._security.stop()
        self._telemetry.gpus.stop()
        self._telemetry.tracing.stop()
        self._telemetry.recorder.stop()
        self._models.stop()

    def _unfinished(self) -> dict[str, object]:
        """Return the open calls and the models with unfinished requests, for the log."""
        return {"open_calls": self._server.live_calls, "models": self._models.unfinished()}


def _build_server(settings: Settings, telemetry: Telemetry, security: Security, statuses: StatusTable) -> Server:
    server = settings.server
    return Server(
        # Outermost first. Interceptors that may reject a call come last, so that the others see the rejection.
        interceptors=(
            telemetry.recorder,
            TrailersInterceptor(telemetry.load.report, report_always=server.load_reports),
            *telemetry.tracing.interceptors,
            *security.interceptors,
        ),
        options=channel_options(server),
        armed_calls=server.armed_calls,
        blocking_threads=server.blocking_threads,
        max_inflight_unary=server.max_inflight_requests,
        express_methods=(health_check.METHOD,),
        message_timeout_s=server.message_timeout_s,
        max_unread_s=min(settings.queue.max_delay_ms / 1000, _MOST_UNREAD_S) or None,
        inflate_up_to_bytes=server.max_message_bytes if server.compressed_requests else None,
        status_of=statuses.rejection,
    )

"""The composition root: builds every object once, starts the server, and brings it to its end."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence

import grpc
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inferd import health_check
from inferd.addresses import is_unix_socket
from inferd.api.errors import StatusTable
from inferd.api.health import HealthService
from inferd.api.reflection import add_reflection
from inferd.api.request_scan import MessageLimits
from inferd.api.services import INFERENCE_SERVICE_NAMES, InferenceServices, method_names
from inferd.config.logging import LogSettings
from inferd.config.settings import Settings
from inferd.machine_limits import LoweredSetting
from inferd.models.loader import ModelLoader
from inferd.models.registry import ModelRegistry
from inferd.models.repository import ModelSource
from inferd.models.version import ModelState, ModelVersion
from inferd.observability.http.server import MOST_CONNECTIONS, Health, HttpServer
from inferd.observability.logging import setup as logs
from inferd.observability.logging.access_log import AccessLog
from inferd.observability.logging.setup import renderer
from inferd.observability.logging.writer import LineWriter, write_to
from inferd.observability.metrics.gpu import GpuSampler
from inferd.observability.metrics.load_report import LoadReporter, LoadSources
from inferd.observability.metrics.registry import Metrics, ModelSample, Sources, new_registry
from inferd.observability.poll_watch import PollWatch
from inferd.observability.recorder import CallRecorder
from inferd.observability.tracing.setup import Tracing
from inferd.observability.trailers import TrailersInterceptor
from inferd.rpc import MemoryMeter, Server
from inferd.rpc.channel_options import channel_options
from inferd.rpc.self_test import check_grpcio
from inferd.runtime.resources import request_budget, resident_bytes, trim_heap, usable_bytes, usable_cores
from inferd.runtime.run_timeout import Watchdog
from inferd.security.authorization.methods import MethodKind, methods_of
from inferd.security.setup import Security
from inferd.security.tls.transport import Transport
from inferd.shutdown_watchdog import ShutdownWatchdog

_log = logging.getLogger(__name__)

_STDOUT = 1

#: How long a thread in Python keeps the others waiting. The poll thread takes the interpreter lock some twenty times
#: for a health check, so beside a thread that reads a large message Python's own 5 ms make more than 100 ms of it.
_SWITCH_INTERVAL_S = 0.001
_HEALTH_SERVICE_NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

#: So many of the largest messages should fit into the memory for requests: one that is received is there twice, and its
#: arrays may be copied once more to be run.
_BUDGET_MESSAGES = 4

#: How much longer than the drain grace calls that were cancelled may take to end, and after that workers and sessions.
_CANCELLED_TIMEOUT_S = 1.0
_UNLOAD_TIMEOUT_S = 2.0

#: How much longer than the drain grace all of it may take. Then the process ends, whatever hangs.
_WATCHDOG_S = 3.4


class Application:
    """One server process. Its methods are for the main thread, each called once, in the order in which they stand.

    Invariants: health says SERVING from the moment when everything given has been loaded or has failed, if anything is
    ready, until draining begins; sessions are closed only after the last call has ended.
    """

    def __init__(
        self,
        settings: Settings,
        sources: Sequence[ModelSource],
        *,
        skipped: Sequence[str] = (),
        lowered: Sequence[LoweredSetting] = (),
        http_connections: int = MOST_CONNECTIONS,
    ) -> None:
        """Make a server of settings that fit the machine; what was ``lowered`` for that is told in the log.

        So is what was ``skipped`` in the search for models.
        """
        self._settings = settings
        self._skipped = skipped
        self._lowered = lowered
        self._sources = sources
        self._serving = threading.Event()
        self._draining = threading.Event()
        self._log_writer = LineWriter(write_to(_STDOUT))
        self._log_control: logs.LogControl | None = None
        self._render = renderer(settings.log.format, colors=os.isatty(_STDOUT))
        self._metrics_registry = new_registry()
        self._recorder = CallRecorder()
        self._metrics = Metrics(self._metrics_registry, self._recorder, methods=method_names())
        self._access_log = AccessLog(settings.log, self._recorder, self._log_writer, self._render)
        self._load = LoadReporter(
            LoadSources(
                models=self._model_samples,
                busy_s=self._metrics.busy_s,
                calls=self._metrics.requests.read,
                cpu_s=time.process_time,
                memory_bytes=resident_bytes,
                cores=usable_cores(),
                memory_limit_bytes=usable_bytes(),
            )
        )
        self._tracing = Tracing(settings.tracing, untraced=methods_of(MethodKind.HEALTH))
        self._security = Security(settings.security)
        self._transport = Transport(settings, self._security.files)
        self._statuses = StatusTable(grpc.StatusCode[settings.api.overload_status])
        self._server = self._make_server()
        self._registry = ModelRegistry()
        self._watchdog = Watchdog("run-watchdog")
        self._loader = ModelLoader(
            settings=settings,
            registry=self._registry,
            clock=time.monotonic,
            poll_thread=self._server.poll_loop,
            alarm=self._watchdog,
            observer_for=self._metrics.observer_for,
            on_state=_log_state,
        )
        self._services = InferenceServices(
            registry=self._registry,
            statuses=self._statuses,
            limits=MessageLimits(requests=settings.api.max_message_requests, elements=settings.api.max_elements),
            is_ready=lambda: self._serving.is_set() and not self._poll_watch.why_not_ready(),
        )
        self._health = HealthService(
            INFERENCE_SERVICE_NAMES,
            is_late=lambda: bool(self._poll_watch.why_not_ready()),
            is_stuck=lambda: bool(self._poll_watch.why_not_alive()),
        )
        self._poll_watch = PollWatch(
            lambda: self._server.poll_lag_s,
            ready_max_lag_s=settings.server.ready_max_lag_s,
            live_max_lag_s=settings.server.live_max_lag_s,
            on_change=self._health.update,
        )
        self._http = HttpServer(
            host=settings.server.http_listens_on,
            port=settings.server.http_port,
            registry=self._metrics_registry,
            readiness=self._readiness,
            liveness=self._liveness,
            tls=self._transport.http_context,
            max_connections=http_connections,
        )
        self._gpus = GpuSampler()
        self._grpc_port = 0

    def start(self) -> None:
        """Bind both ports and answer on them; health says NOT_SERVING for now.

        Raises `OSError` naming the address, or `BadFileError` naming a file of credentials, rules or certificates.
        """
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        self._log_writer.start()
        self._recorder.start()
        self._log_control = logs.configure(self._settings.log, self._log_writer, self._render)
        for each in self._lowered:
            _log.warning("lowered %s from %d to %d: %s", each.setting, each.value, each.new_value, each.reason)
        for reason in self._skipped:
            _log.warning("%s", reason)
        self._transport.start()
        self._security.start()
        self._add_services()
        self._metrics.watch(
            Sources(
                models=self._model_samples,
                inflight_requests=lambda: self._server.live_calls,
                server_usage=lambda: self._server.usage,
                poll_lag_s=lambda: self._server.poll_lag_s,
                log_lines_dropped=lambda: self._log_writer.dropped,
                spans_dropped=lambda: self._tracing.dropped,
                gpus=self._gpus.samples,
                certificate_expiry=self._transport.certificate_expiry,
                certificate_lifetimes_s=self._transport.certificate_lifetimes_s,
                file_reload_failures=self._security.failures,
                quota_rejections=self._security.quota_rejections,
                jwks_age_s=self._security.jwks_age_s,
            )
        )
        self._grpc_port = self._transport.listen(self._server)
        self._tracing.start()
        self._gpus.start()
        self._watchdog.start()
        self._http.start()
        self._poll_watch.start()
        check_grpcio()
        self._server.start()
        _log.info("listening", extra={"grpc": self.grpc_address, "http": self.http_address})

    @property
    def grpc_address(self) -> str:
        """Where gRPC is served, with the real port."""
        server = self._settings.server
        return server.host if is_unix_socket(server.host) else f"{server.host}:{self._grpc_port}"

    @property
    def http_address(self) -> str:
        """Where HTTP is served, with the real port."""
        return f"{self._settings.server.http_listens_on}:{self._http.port}"

    def change_log(self, settings: LogSettings) -> None:
        """Take over the levels of the log and whether there are access lines; any thread. Before the start: nothing."""
        if self._log_control is None:
            return
        self._log_control.change(settings)
        self._access_log.change(settings)

    def load(self, on_loaded: Callable[[], None]) -> None:
        """Begin to load every model that was given; ``on_loaded`` is called by another thread when that is over."""
        self._loader.load_all(self._sources, on_loaded)

    def open(self, examples: Callable[[str], Sequence[str]]) -> bool:
        """Say SERVING, if there is a model that is ready. Returns False if there is none.

        ``examples`` makes calls that a person may try from the address of gRPC; they stand in the log.
        """
        ready = [version for version in self._registry.all() if version.state is ModelState.READY]
        if not ready:
            _log.error("no model could be loaded")
            return False
        self._limit_memory()
        self._serving.set()
        self._health.open()
        _log.info(
            "ready",
            extra={
                "grpc": self.grpc_address,
                "http": self.http_address,
                "models": sorted({version.name for version in ready}),
                "try": examples(self.grpc_address),
            },
        )
        return True

    def _limit_memory(self) -> None:
        """Keep requests within the budget from now on; the models have been loaded."""
        server = self._settings.server
        budget = server.memory_budget_bytes
        if budget is None:
            budget = request_budget(resident_bytes(), usable_bytes())
        if budget < _BUDGET_MESSAGES * server.max_message_bytes:
            _log.warning(
                "the memory for requests is small for server.max_message_bytes",
                extra={"budget_bytes": budget, "max_message_bytes": server.max_message_bytes},
            )
        self._server.limit_memory(budget, MemoryMeter(resident=resident_bytes, give_back=trim_heap))

    def drain(self) -> bool:
        """End the server: finish what was admitted, within the grace. Returns True if nothing was cut off."""
        server = self._settings.server
        self._draining.set()
        self._serving.clear()
        self._health.drain()
        _log.info("draining", extra={"delay_s": server.drain_delay_s, "grace_s": server.drain_grace_s})
        watchdog = ShutdownWatchdog(describe=self._unfinished, flush=self._flush_log)
        watchdog.arm(server.drain_delay_s + server.drain_grace_s + _WATCHDOG_S)
        time.sleep(server.drain_delay_s)
        ended_at = time.monotonic() + server.drain_grace_s
        self._health.end_watches()
        self._server.poll_loop.call_at(time.monotonic(), self._services.drain)
        if not self._server.stop(server.drain_grace_s).wait(server.drain_grace_s + _CANCELLED_TIMEOUT_S):
            _log.error("the calls that were cancelled have not ended")
        # Nothing is late any more once nothing is served.
        self._poll_watch.stop()
        in_time = time.monotonic() < ended_at
        unloaded = self._loader.unload_all(max(ended_at - time.monotonic(), _UNLOAD_TIMEOUT_S))
        self._services.stop(_UNLOAD_TIMEOUT_S)
        self._http.stop()
        self._security.stop()
        self._gpus.stop()
        self._tracing.stop()
        self._recorder.stop()
        self._watchdog.stop()
        _log.info("stopped", extra={"in_time": in_time and unloaded})
        self._flush_log()
        watchdog.disarm()
        return in_time and unloaded

    def _flush_log(self) -> None:
        if self._log_control is not None:
            self._log_control.flush()
        self._log_writer.stop()

    def _unfinished(self) -> dict[str, object]:
        """Say what there is still to be done, for the log."""
        models = {
            f"{each.name} {each.version}": each.batcher.unanswered_requests + each.batcher.stuck_threads
            for each in self._registry.all()
            if each.batcher is not None
        }
        return {"open_calls": self._server.live_calls, "models": [name for name, left in models.items() if left]}

    def _make_server(self) -> Server:
        server = self._settings.server
        return Server(
            # Outermost first; whatever may refuse a call comes last, so that the others see it refused.
            interceptors=(
                self._recorder,
                TrailersInterceptor(self._load.report, report_always=server.load_reports),
                *self._tracing.interceptors,
                *self._security.interceptors,
            ),
            options=channel_options(server),
            armed_calls=server.armed_calls,
            blocking_threads=server.blocking_threads,
            max_inflight_unary=server.max_inflight_requests,
            express_methods=(health_check.METHOD,),
            message_timeout_s=server.message_timeout_s,
            inflate_up_to_bytes=server.max_message_bytes if server.compressed_requests else None,
            status_of=self._statuses.refusal,
        )

    def _add_services(self) -> None:
        server = self._settings.server
        self._services.add_to(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._server.add_registered_method_handlers(_HEALTH_SERVICE_NAME, self._health.handlers())
        if server.channelz:
            channelz.add_channelz_servicer(self._server)
        if server.reflection:
            add_reflection(self._server, (*INFERENCE_SERVICE_NAMES, _HEALTH_SERVICE_NAME))

    def _readiness(self) -> Health:
        details = [f"{each.name} {each.version}: {each.state.value}" for each in self._registry.all()]
        if self._draining.is_set():
            return Health(ok=False, reason="draining", details=details)
        if not self._serving.is_set():
            return Health(ok=False, reason="no model is ready", details=details)
        why_not = self._poll_watch.why_not_ready()
        return Health(ok=not why_not, reason=why_not or "ok", details=details)

    def _liveness(self) -> Health:
        why_not = self._poll_watch.why_not_alive()
        return Health(ok=not why_not, reason=why_not or "ok")

    def _model_samples(self) -> Iterable[ModelSample]:
        for version in self._registry.all():
            batcher = version.batcher
            yield ModelSample(
                model=version.name,
                version=version.version,
                state=version.state.value,
                queue_rows=batcher.queue_rows if batcher else 0,
                queue_limit_rows=batcher.queue_limit_rows if batcher else 0,
                queue_bytes=batcher.queue_bytes if batcher else 0,
                instances=version.settings.batching.instances if batcher else 0,
                capacity_rows_per_s=version.settings.batching.instances * batcher.most_rows_per_s if batcher else 0.0,
                memory_bytes=version.memory_bytes,
                stuck_threads=batcher.stuck_threads if batcher else 0,
            )


def _log_state(version: ModelVersion) -> None:
    facts = {"model": version.name, "version": version.version, "state": version.state.value}
    if version.state is ModelState.FAILED:
        _log.error("model failed to load", extra={**facts, "reason": version.reason})
    elif version.state is ModelState.READY:
        _log.info(
            "model ready", extra={**facts, "providers": version.providers, "max_batch_size": version.max_batch_size}
        )
    else:
        _log.info("model %s", version.state.value, extra=facts)

"""The health service and its watches, without a network."""

import tracemalloc

import grpc
import pytest
from grpc_health.v1 import health_pb2

from inferd import wire
from inferd.api.health import HealthService
from inferd.call_context import ANONYMOUS, CallContext
from inferd.config.settings import ModelSettings
from inferd.models.registry import ModelRegistry
from inferd.models.states import ModelState
from inferd.models.version import ModelVersion
from inferd.security.authorization.policy import Policy, permissions_of
from inferd.security.authorization.quota import QuotaStore
from tests.unit.call_context import call_context

NOT_SERVING, SERVING = health_pb2.HealthCheckResponse.NOT_SERVING, health_pb2.HealthCheckResponse.SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
ENDED = None


class Watcher:
    """One watch; records what was sent to it."""

    def __init__(self, service, *, name="", gone=False, context=None):
        self.seen = []
        self._gone = gone
        self._callbacks = []
        self.call_context = context or CallContext()
        service.watch(health_pb2.HealthCheckRequest(service=name), self, self._receive)

    def add_callback(self, callback):
        if not self._gone:
            self._callbacks.append(callback)
        return not self._gone

    def go(self):
        self._gone = True
        for callback in self._callbacks:
            callback()

    def _receive(self, response):
        self.seen.append(response and response.status)


def _service():
    service = HealthService(["some.Service"])
    service.open()
    return service


def test_watch_sends_changes_then_ends():
    """The last status is sent before the stream ends."""
    service = _service()
    watchers = [Watcher(service), Watcher(service)]
    service.drain()
    service.end_watches()
    assert [watcher.seen for watcher in watchers] == [[SERVING, NOT_SERVING, ENDED]] * 2


def test_late_watch_gets_status_and_ends():
    """No watch can delay a server that is stopping."""
    service = _service()
    service.drain()
    service.end_watches()
    assert Watcher(service).seen == [NOT_SERVING, ENDED]


def test_cancelled_watch_gets_nothing():
    """Whether cancelled while open, or before it began."""
    service = _service()
    left = Watcher(service)
    left.go()
    never_there = Watcher(service, gone=True)
    service.drain()
    service.end_watches()
    assert left.seen == [SERVING]
    assert never_there.seen == []


def test_unknown_names_use_no_memory():
    """Any client may watch. Such a watch stays open, as the contract says, and ends with the others."""
    service = _service()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(1000):
        watcher = Watcher(service, name=f"{number}" * 1000)
        assert watcher.seen == [SERVICE_UNKNOWN]
        watcher.go()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 100_000
    staying = Watcher(service, name="unknown")
    service.drain()
    service.end_watches()
    assert staying.seen == [SERVICE_UNKNOWN, ENDED]


class Call:
    """A call to `Check`; records its outcome."""

    def __init__(self, service, message, context=None):
        self.status = self.aborted = None
        self.context = context or CallContext()
        service.handlers()["Check"].callback(self, message)

    def reply(self, message):
        self.status = health_pb2.HealthCheckResponse.FromString(message).status

    def abort(self, code, details):
        self.aborted = (code, details)


def _check(service, name="", context=None):
    return Call(service, health_pb2.HealthCheckRequest(service=name).SerializeToString(), context)


def test_check_returns_current_status():
    """For the server, each service and each probe, in each phase."""
    service = HealthService(["some.Service"])
    names = ("", "some.Service", "readiness", "startup", "liveness")
    seen = [[_check(service, name).status for name in names]]
    for become in (service.open, service.drain):
        become()
        seen.append([_check(service, name).status for name in names])
    loading, opened, draining = seen
    assert loading == [NOT_SERVING, NOT_SERVING, NOT_SERVING, NOT_SERVING, SERVING]
    assert opened == [SERVING] * 5
    assert draining == [NOT_SERVING, NOT_SERVING, NOT_SERVING, SERVING, SERVING]


def test_started_server_may_not_be_ready():
    """It may wait for a model that has failed; a probe of the start must not kill it."""
    service = HealthService()
    service.start()
    assert [_check(service, name).status for name in ("startup", "readiness")] == [SERVING, NOT_SERVING]


def test_check_of_unknown_service_is_not_found():
    """With the name, clipped and escaped, and the known names."""
    for name, shown in (("no.Such", "no.Such"), ("\x1b[2J" + "x" * 1000, "\\x1b[2J" + "x" * 76 + "…")):
        call = _check(_service(), name)
        assert call.status is None
        names = "startup, readiness, some.Service, liveness, a model"
        text = f'service: expected one of {names}, or none for the whole server, got "{shown}"'
        assert call.aborted == (grpc.StatusCode.NOT_FOUND, text)


class Listing:
    """A call to `List`; records the statuses."""

    def __init__(self, service, context=None):
        self.context = context or CallContext()
        service.handlers()["List"].callback(self, b"")

    def reply(self, message):
        self.statuses = {}
        for entry in wire.contents(message, wire.length_tag(1)):
            name, status = (list(wire.contents(entry, wire.length_tag(number))) for number in (1, 2))
            self.statuses[name[0].decode()] = health_pb2.HealthCheckResponse.FromString(status[1]).status


@pytest.mark.parametrize("become", [None, "open", "drain"])
def test_list_agrees_with_check(become):
    """In each phase, for each known name."""
    service = HealthService(["some.Service"])
    if become:
        getattr(service, become)()
    listed = Listing(service).statuses
    assert set(listed) == {"", "some.Service", "readiness", "startup", "liveness"}
    assert listed == {name: _check(service, name).status for name in listed}


def test_check_rejects_malformed_message():
    """As INVALID_ARGUMENT."""
    call = Call(_service(), b"\xff")
    assert call.status is None
    assert call.aborted[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert "HealthCheckRequest" in call.aborted[1]


class Lagging:
    """A service whose poll thread is late or stuck when the test says."""

    def __init__(self):
        self.late = self.stuck = False
        self.service = HealthService(["some.Service"], is_late=lambda: self.late, is_stuck=lambda: self.stuck)
        self.service.open()

    def become(self, *, late=False, stuck=False):
        self.late, self.stuck = late, stuck
        self.service.update()


def test_late_is_not_ready_and_stuck_is_not_alive():
    """Check reports it by itself, and the recovery."""
    lagging = Lagging()
    names = ("", "some.Service", "readiness", "startup", "liveness")
    seen = []
    for lagging.late, lagging.stuck in ((True, False), (True, True), (False, False)):
        seen.append([_check(lagging.service, name).status for name in names])
    late, stuck, well = seen
    assert late == [NOT_SERVING, NOT_SERVING, NOT_SERVING, SERVING, SERVING]
    assert stuck == [NOT_SERVING, NOT_SERVING, NOT_SERVING, SERVING, NOT_SERVING]
    assert well == [SERVING] * 5


def test_watch_reports_late_server():
    """Once per change; draining is final."""
    lagging = Lagging()
    ready, alive = Watcher(lagging.service), Watcher(lagging.service, name="liveness")
    for state in ({"late": True}, {"late": True}, {"late": True, "stuck": True}, {}):
        lagging.become(**state)
    lagging.service.drain()
    lagging.become(late=True)
    lagging.become()
    assert ready.seen == [SERVING, NOT_SERVING, SERVING, NOT_SERVING]
    assert alive.seen == [SERVING, NOT_SERVING, SERVING]


class Models:
    """A service whose models change their states when the test says."""

    def __init__(self, **settings):
        self.registry = ModelRegistry()
        self.late = False
        self.service = HealthService(models=self.registry, is_late=lambda: self.late, **settings)
        self.service.open()

    def put(self, name, version, state):
        model = ModelVersion(name=name, version=version, settings=ModelSettings())
        model.state = state
        self.registry.put(model)
        self.service.update_models()
        return model

    def become(self, model, state):
        model.state = state
        self.service.update_models()


def test_model_is_serving_while_a_version_is_ready():
    """By its name; one version by name and number."""
    models = Models()
    models.put("digits", "1", ModelState.READY)
    models.put("digits", "2", ModelState.LOADING)
    models.put("broken", "1", ModelState.FAILED)
    names = ("digits", "digits/1", "digits/2", "broken")
    assert [_check(models.service, name).status for name in names] == [SERVING, SERVING, NOT_SERVING, NOT_SERVING]


def test_unknown_model_is_not_found():
    """Nor is an unknown version, or a version without a name."""
    models = Models()
    models.put("digits", "1", ModelState.READY)
    for name in ("digit", "digits/9", "/1", "digits/", "digits/1/1"):
        assert _check(models.service, name).aborted[0] is grpc.StatusCode.NOT_FOUND


def test_models_serve_with_the_server():
    """Not while it drains or is late; before all models are loaded, those that are ready serve."""
    models = Models()
    models.put("digits", "1", ModelState.READY)
    loading = HealthService(models=models.registry)
    assert _check(loading, "digits").status == SERVING
    models.late = True
    assert _check(models.service, "digits").status == NOT_SERVING
    models.late = False
    models.service.drain()
    assert _check(models.service, "digits").status == NOT_SERVING


def test_watch_of_a_model_that_comes_and_goes():
    """It is unknown, then loads, serves, is late with the server, is unloaded, and is gone."""
    models = Models()
    watcher = Watcher(models.service, name="digits")
    version = models.put("digits", "1", ModelState.LOADING)
    for state in (ModelState.WARMING, ModelState.READY):
        models.become(version, state)
    for models.late in (True, False):
        models.service.update()
    models.become(version, ModelState.UNLOADING)
    models.registry.remove(version)
    models.service.update_models()
    not_yet = [SERVICE_UNKNOWN, NOT_SERVING]
    assert watcher.seen == [*not_yet, SERVING, NOT_SERVING, SERVING, NOT_SERVING, SERVICE_UNKNOWN]


def test_model_on_demand_serves_unless_it_failed():
    """It can answer, loaded or not: watchers see neither loads nor evictions."""
    models = Models()
    version = models.put("digits", "1", ModelState.ON_DEMAND)
    version.on_demand = True
    watcher = Watcher(models.service, name="digits")
    for state in (ModelState.LOADING, ModelState.READY, ModelState.UNLOADING, ModelState.ON_DEMAND):
        models.become(version, state)
    assert watcher.seen == [SERVING]
    models.become(version, ModelState.FAILED)
    models.become(version, ModelState.LOADING)
    assert watcher.seen == [SERVING, NOT_SERVING, SERVING]


def test_watch_does_not_see_a_switch_of_versions():
    """Some version is ready all the time."""
    models = Models()
    old = models.put("digits", "1", ModelState.READY)
    watcher, of_old = Watcher(models.service, name="digits"), Watcher(models.service, name="digits/1")
    new = models.put("digits", "2", ModelState.LOADING)
    models.become(new, ModelState.READY)
    models.become(old, ModelState.UNLOADING)
    assert watcher.seen == [SERVING]
    assert of_old.seen == [SERVING, NOT_SERVING]


def test_name_of_a_service_comes_first():
    """A model cannot stand in for a probe."""
    models = Models()
    models.put("readiness", "1", ModelState.FAILED)
    assert _check(models.service, "readiness").status == SERVING


def test_list_has_the_models():
    """By name, without their versions."""
    models = Models()
    models.put("digits", "1", ModelState.READY)
    models.put("broken", "1", ModelState.FAILED)
    listed = Listing(models.service).statuses
    assert {name: listed[name] for name in ("digits", "broken")} == {"digits": SERVING, "broken": NOT_SERVING}
    assert set(listed) == {"", "readiness", "startup", "liveness", "digits", "broken"}


def _allowed(pattern):
    policy = Policy.model_validate({"rules": [{"principals": ["*"], "models": [pattern], "methods": ["infer"]}]})
    return call_context(principal="token:me", permissions=permissions_of("token:me", policy, QuotaStore()))


def test_models_of_others_are_unknown():
    """To a caller whose rules do not name them: in Check, Watch and List."""
    models = Models()
    models.put("digits", "1", ModelState.READY)
    for pattern, seen in (("digits", True), ("other", False)):
        context = _allowed(pattern)
        assert (_check(models.service, "digits", context).status == SERVING) is seen
        assert Watcher(models.service, name="digits", context=context).seen == [SERVING if seen else SERVICE_UNKNOWN]
        assert ("digits" in Listing(models.service, context).statuses) is seen


@pytest.mark.parametrize(
    ("opened", "principal", "seen"),
    [(False, None, True), (False, "token:me", True), (False, ANONYMOUS, False), (True, ANONYMOUS, True)],
)
def test_models_are_unknown_without_a_credential(opened, principal, seen):
    """If other calls need one, unless the setting says otherwise; without authentication there is no principal."""
    models = Models(anonymous_sees_models=opened)
    models.put("digits", "1", ModelState.READY)
    context = call_context(principal=principal)
    assert (_check(models.service, "digits", context).status == SERVING) is seen
    assert ("digits" in Listing(models.service, context).statuses) is seen
    assert _check(models.service, "readiness", context).status == SERVING

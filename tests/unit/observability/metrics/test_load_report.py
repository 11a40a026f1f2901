"""Load reports, parsed by protobuf with the published field numbers."""

import threading
from dataclasses import replace

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from inferd.observability.metrics.families import ModelSample
from inferd.observability.metrics.histogram import DURATION_BOUNDS_S, Histogram
from inferd.observability.metrics.load_report import Load, LoadReporter, LoadSources
from inferd.observability.metrics.requests import RequestLabels
from tests.patience import PATIENCE_S
from tests.unit.observability.metrics.samples import LANGUAGE_MODEL

_DOUBLES = {
    "cpu_utilization": 1,
    "mem_utilization": 2,
    "rps_fractional": 6,
    "eps": 7,
    "application_utilization": 9,
}


def orca_load_report():
    """Build the message that the authors of ORCA have published, as far as it is used here."""
    file = descriptor_pb2.FileDescriptorProto(name="orca.proto", package="xds.data.orca.v3", syntax="proto3")
    message = file.message_type.add(name="OrcaLoadReport")
    entry = message.nested_type.add(name="UtilizationEntry")
    entry.options.map_entry = True
    field = descriptor_pb2.FieldDescriptorProto
    optional, repeated = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    text, double = field.TYPE_STRING, field.TYPE_DOUBLE
    entry.field.add(name="key", number=1, label=optional, type=text)
    entry.field.add(name="value", number=2, label=optional, type=double)
    for name, number in _DOUBLES.items():
        message.field.add(name=name, number=number, label=optional, type=double)
    message.field.add(
        name="utilization",
        number=5,
        label=repeated,
        type=field.TYPE_MESSAGE,
        type_name=".xds.data.orca.v3.OrcaLoadReport.UtilizationEntry",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("xds.data.orca.v3.OrcaLoadReport"))


class Server:
    """A server with a scripted load."""

    def __init__(self):
        self.now = 100.0
        self.cpu_s = 10.0
        self.busy_s = {("m", "1"): 5.0}
        self.models = [ModelSample(model="m", version="1", state="ready", queue_limit_rows=100, instances_under_load=2)]
        self.codes = dict.fromkeys(("OK", "NOT_FOUND", "RESOURCE_EXHAUSTED", "INTERNAL"), 0)
        self.measured = 0
        self.when_looked_at = lambda: None
        self.reporter = LoadReporter(
            LoadSources(
                models=self.look,
                busy_s=lambda: dict(self.busy_s),
                calls=self._calls,
                cpu_s=lambda: self.cpu_s,
                memory_bytes=lambda: 256,
                cores=4,
                memory_limit_bytes=1024,
            ),
            clock=lambda: self.now,
        )

    def look(self):
        self.when_looked_at()
        return self.models

    def _calls(self):
        self.measured += 1
        calls = {}
        for code, count in self.codes.items():
            calls[RequestLabels("m", "1", "a/b", code)] = histogram = Histogram(DURATION_BOUNDS_S)
            histogram.observe_all([0.001] * count)
        return calls

    def after(self, seconds, *, cpu_s=0.0, busy_s=0.0, queue_rows=0, **codes):
        self.now += seconds
        self.cpu_s += cpu_s
        self.busy_s["m", "1"] += busy_s
        self.models = [
            ModelSample(
                model="m",
                version="1",
                state="ready",
                queue_rows=queue_rows,
                queue_limit_rows=100,
                instances_under_load=2,
            )
        ]
        for code, count in codes.items():
            self.codes[code] += count
        return self.reporter


def test_report_is_valid_protobuf():
    """With the published field numbers."""
    load = Load(cpu=0.5, memory=0.25, application=1.5, queue=0.75, served_per_s=1000.5, failed_per_s=3.0)
    report = orca_load_report().FromString(load.to_bytes())
    assert {name: getattr(report, name) for name in _DOUBLES} == {
        "cpu_utilization": 0.5,
        "mem_utilization": 0.25,
        "rps_fractional": 1000.5,
        "eps": 3.0,
        "application_utilization": 1.5,
    }
    assert dict(report.utilization) == {"queue": 0.75}


def test_calls_per_second():
    """Callers' mistakes count as served; rejections do not, or an overloaded server would attract calls."""
    load = Server().after(0.5, OK=100, NOT_FOUND=10, RESOURCE_EXHAUSTED=400, INTERNAL=5).measure()
    assert (load.served_per_s, load.failed_per_s) == (220.0, 810.0)


@pytest.mark.parametrize(
    ("happened", "application"),
    [
        ({}, 0.0),
        ({"busy_s": 1.0}, 0.5),
        ({"busy_s": 2.0, "queue_rows": 30}, 1.3),
        ({"busy_s": 9.0, "queue_rows": 900}, 2.0),
        ({"cpu_s": 3.0, "busy_s": 1.0}, 0.75),
    ],
)
def test_utilization(happened, application):
    """Busy fraction of the models plus the fill level of the queue; of the CPU, if that is higher."""
    load = Server().after(1.0, **happened).measure()
    assert load.application == pytest.approx(application)
    assert load.queue == min(happened.get("queue_rows", 0) / 100, 1.0)
    assert load.cpu == happened.get("cpu_s", 0.0) / 4


def test_model_without_queue():
    """While it is loaded."""
    server = Server()
    server.models = [ModelSample(model="n", version="1", state="loading")]
    server.now += 1.0
    assert server.reporter.measure().application == 0.0


@pytest.mark.parametrize(("used", "waiting", "application"), [(1000, 0, 0.75), (3600, 2, 0.9 + 0.25), (4000, 100, 2.0)])
def test_language_model(used, waiting, application):
    """The part of its cache or its places that is used, not the busy fraction, which one sequence makes 1."""
    server = Server()
    generation = replace(LANGUAGE_MODEL.generation, cache_used_bytes=used, waiting=waiting)
    server.busy_s["lm", "1"] = 0.0
    server.reporter.measure()
    server.now += 1.0
    server.busy_s["lm", "1"] = 1.0
    server.models = [replace(LANGUAGE_MODEL, generation=generation)]
    load = server.reporter.measure()
    assert load.application == pytest.approx(application)
    assert load.queue == min(waiting / 8, 1.0)


def test_covers_the_window_only():
    """Earlier load does not count."""
    server = Server()
    server.after(1.0, OK=1000).measure()
    for _ in range(20):
        server.after(0.1, OK=1).measure()
    assert server.reporter.measure().served_per_s == pytest.approx(10.0)


def test_report_is_cached_for_a_period():
    """However many calls end meanwhile."""
    server = Server()
    server.after(1.0, OK=10)
    first = server.reporter.report()
    measured = server.measured
    server.after(0.05, OK=10)
    assert server.reporter.report() is first
    assert server.measured == measured
    server.after(0.05, OK=10)
    assert server.reporter.report() != first


def test_threads_do_not_wait_for_a_report():
    """While one builds a report, others return the previous one."""
    server = Server()
    last = server.reporter.report()
    server.now += 1.0
    given = []

    def report_elsewhere():
        thread = threading.Thread(target=lambda: given.append(server.reporter.report()))
        thread.start()
        thread.join(PATIENCE_S)

    server.when_looked_at = report_elsewhere
    server.reporter.report()
    assert given == [last]

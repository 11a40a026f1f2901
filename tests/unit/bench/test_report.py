"""Reports: JSON, the page, warnings and comparisons."""

import json
import re
from html.parser import HTMLParser

import pytest

from inferd.bench import compare, html
from inferd.bench.histogram import Histogram
from inferd.bench.loads import Arrival, ClosedLoop, OpenLoop, Trace
from inferd.bench.report import SCHEMA, load_text, warnings, write
from inferd.bench.stored import ReportError, read
from tests.unit.bench.reports import a_report, a_step


def test_step_has_the_figures():
    """Rates are of the measured time, shares of the requests meant for it."""
    step = a_step(ClosedLoop(concurrency=8))
    assert (step["requests"], step["ok"], step["failed"]) == (100, 97, 3)
    assert step["throughput_per_s"] == pytest.approx(9.7)
    assert step["rows_per_s"] == pytest.approx(19.4)
    assert step["goodput"] == {"objective_ms": 50.0, "share": 0.97, "per_s": 9.7}
    assert step["latency_ms"]["p99"] == pytest.approx(10, rel=0.001)
    assert [(each["code"], each["reason"], each["count"]) for each in step["statuses"]] == [
        ("OK", "", 97), ("RESOURCE_EXHAUSTED", "QUEUE_FULL", 3),
    ]  # fmt: skip
    assert [each["requests"] for each in step["classes"]] == [50, 50]
    assert len(step["series"]["points"]) == 11


def test_histogram_of_a_report_can_be_read_again():
    """By any HdrHistogram library."""
    histogram = Histogram()
    histogram.__setstate__((3, 0, a_step(ClosedLoop(concurrency=8))["histogram"]))
    assert histogram.count == 97


def test_written_reports_are_read(tmp_path):
    """As they were."""
    report = a_report(a_step(OpenLoop(rate_per_s=10.0)))
    write(report, tmp_path / "a.json")
    assert read(tmp_path / "a.json") == json.loads(json.dumps(report))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected a report as JSON"),
        ("[]", f"schema: expected {SCHEMA}, got none"),
        ('{"schema": "inferd-bench/9"}', f"schema: expected {SCHEMA}, got inferd-bench/9"),
        (f'{{"schema": "{SCHEMA}"}}', "steps: expected one, got none"),
        ("[" * 100_000, "expected a report as JSON"),
    ],
)
def test_other_files_are_no_reports(tmp_path, text, message):
    """The file, what was expected and what came."""
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ReportError, match=re.escape(message)):
        read(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"steps": "x"}, "steps: expected a valid list, got str"),
        ({"plan": None}, "plan: expected an object, got NoneType"),
        ({"steps": [{"load": {}}]}, "steps.0.load: expected its kind in it, got dict"),
        ({"steps": [{}]}, "steps.0.load: expected one, got none"),
    ],
)
def test_damaged_reports_name_the_member(tmp_path, damage, message):
    """Before anything is compared."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps(a_report() | damage))
    with pytest.raises(ReportError, match=re.escape(message)):
        read(path)


def test_slow_generators_are_reported():
    """Late sends of an open loop, and a process without time to spare."""
    assert warnings(a_step(OpenLoop(rate_per_s=10.0))) == []
    (late,) = warnings(a_step(OpenLoop(rate_per_s=10.0), lag_s=0.004))
    assert "sent late" in late
    assert warnings(a_step(ClosedLoop(concurrency=8), lag_s=0.004)) == []
    (busy,) = warnings(a_step(ClosedLoop(concurrency=8), cpu_share=0.95))
    assert "95% of a core" in busy


def test_texts_of_loads():
    """Short enough for a table."""
    trace = Trace(entries=(Arrival(0.0),))
    steps = [a_step(load) for load in (ClosedLoop(concurrency=8), OpenLoop(rate_per_s=2.5), trace)]
    assert [load_text(step["load"]) for step in steps] == ["8 in flight", "2.5/s poisson", "trace of 1"]


class _Page(HTMLParser):
    """The elements of a page, checked for their ends."""

    def __init__(self):
        super().__init__()
        self.open = []
        self.tags = set()
        self.attributes = []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    "loads",
    [
        [ClosedLoop(concurrency=8)],
        [OpenLoop(rate_per_s=10.0), OpenLoop(rate_per_s=1000.0)],
        [Trace(entries=(Arrival(0.0),))],
    ],
)
def test_page_is_self_contained(loads):
    """Well-formed; nothing is fetched, no script, and what others wrote is text."""
    text = html.page(a_report(*map(a_step, loads)))
    page = _Page()
    page.feed(text)
    assert not page.open
    assert "svg" in page.tags
    assert not page.tags & {"script", "b>one", "i", "link", "img", "iframe"}
    assert not {name for name, _ in page.attributes} & {"src", "href", "onload", "style"}
    assert "url(" not in text
    assert "@import" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\x1b" in text
    assert "prefers-color-scheme: dark" in text


def test_page_begins_with_the_point_of_saturation():
    """Rather than with a step that answered more, later."""
    loads = [OpenLoop(rate_per_s=8.0), OpenLoop(rate_per_s=16.0)]
    steps = [a_step(load, failures=10 - number) for number, load in enumerate(loads)]
    assert "These are the figures of 8/s poisson." in html.page(a_report(*steps))
    unknown = a_report(*steps) | {"saturation": {"level": None, "reached": True}}
    assert "These are the figures of 16/s poisson." in html.page(unknown)


def test_page_without_answers():
    """Charts without points say so."""
    assert "No answers." in html.page(a_report(a_step(ClosedLoop(concurrency=8), failures=100)))


def test_comparison():
    """The same load of both; whether a change is for the better depends on the figure."""
    before = a_report(a_step(ClosedLoop(concurrency=8)), a_step(ClosedLoop(concurrency=16)))
    after = a_report(a_step(ClosedLoop(concurrency=8), latency_s=0.02, failures=0), retries=3)
    deltas = {delta.metric.name: delta for delta in compare.differences(before, after)}
    assert {delta.load for delta in deltas.values()} == {"8 in flight"}
    assert deltas["p50"].change == pytest.approx(1.0, rel=0.01)
    assert deltas["p50"].better is False
    assert deltas["throughput"].change == pytest.approx(3 / 97)
    assert deltas["throughput"].better is True
    assert deltas["failed"].better is True
    assert compare.unmatched(before, after) == ["16 in flight"]
    assert compare.different_settings(before, after) == ["retries: None and 3"]

"""What ``inferd bench`` shows; its runs are in tests/integration/test_bench.py."""

from io import StringIO

import pytest
from rich.console import Console

from inferd.bench.loads import ClosedLoop, OpenLoop
from inferd.bench.recorder import Interval
from inferd.bench.session import Live
from inferd.bench.workers import Progress
from inferd.cli.bench_output import LiveView, print_report
from inferd.cli.failures import missing_package
from tests.unit.bench.reports import a_report, a_step

_LOAD = {"kind": "closed", "concurrency": 8}


def _progress(ok, latency_s):
    ended = Interval(ok=ok, failed=3)
    for _ in range(ok):
        ended.latency.record(latency_s)
    return Progress(in_flight=5, ended=ended)


def _show(console, *lives):
    with LiveView(console) as view:
        for live in lives:
            view.show(live)


def test_live_view_shows_the_last_seconds():
    """Rates and percentiles of all workers together; older reports have left."""
    out = StringIO()
    old = Live(_LOAD, 1.0, 10.0, [_progress(1000, 1.0)])
    new = Live(_LOAD, 4.0, 10.0, [_progress(100, 0.02), _progress(100, 0.02)])
    _show(Console(file=out, force_terminal=True, width=100), old, new)
    last = out.getvalue().rpartition("in flight ")[2]
    assert [word for word in last.split() if word.replace(".", "").isdigit()][:5] == [
        "10",
        "100",
        "3",
        "20.09",
        "20.09",
    ]


def test_live_view_needs_a_terminal():
    """Nothing goes to a file or a pipe."""
    out = StringIO()
    _show(Console(file=out), Live(_LOAD, 1.0, 10.0, [_progress(10, 1.0)]))
    assert out.getvalue() == ""


def test_report_as_text(capsys):
    """A row for each step and class; failures with the server's message, escaped; the server's count; saturation."""
    print_report(a_report(a_step(ClosedLoop(concurrency=8)), a_step(ClosedLoop(concurrency=16), failures=0)))
    lines = capsys.readouterr().out.splitlines()
    row = next(line.split() for line in lines if line.startswith("8 in flight"))
    assert row[3:7] == ["9.70", "19.40", "97.00", "10.01"]
    assert any(line.startswith("two ") for line in lines)
    assert "8 in flight: 3 times RESOURCE_EXHAUSTED QUEUE_FULL: <script>alert(1)</script>\\x1b" in lines
    assert "8 in flight: server, m: 10 rows in 5 runs, 2.0 rows a run; queue 1.00 ms" in lines
    assert "8 in flight: server, n: no statistics: UNIMPLEMENTED" in lines
    assert lines[-1] == "saturated beyond 8 requests in flight"


def test_warnings_are_printed(capsys):
    """Of a generator that measured itself."""
    print_report(a_report(a_step(OpenLoop(rate_per_s=10.0), lag_s=0.02)))
    assert "10/s poisson: warning: the generator sent late" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            "hdrh",
            "this needs the package hdrhistogram, which is not installed; it comes with pip install 'inferd[cli]'",
        ),
        ("rich", "the command line comes with pip install 'inferd[cli]', and with the server"),
    ],
)
def test_missing_packages(module, message):
    """What to install, by the name of the package."""
    assert message in missing_package(ModuleNotFoundError(name=f"{module}.part"))

"""A real Prometheus that scrapes a real server under load has all data of the dashboard and the rules."""

import math
import re
import subprocess
import time
import urllib.request

import grpc
import pytest
import yaml

from inferd._generated.inferd.v1 import inference_pb2 as v1
from scripts import draw_dashboard
from scripts.dashboard_panels import SECTIONS
from scripts.draw_dashboard import Source, draw
from scripts.generate_dashboard import dashboard, expression
from tests.e2e.observed import bearer, observed
from tests.patience import PATIENCE_S, eventually
from tests.prometheus import INTERVAL_S, PROMTOOL, RULES, metrics_in
from tests.server import ROOT

#: The first one is after five seconds of load.
SCRAPES = 6

#: Panels without data here, with the reason.
WITHOUT_DATA = {
    "GPU": "the machine has none",
    "GPU memory": "the machine has none",
    "Cold requests": "all models are loaded at start",
    "Downloads of models": "there is no remote repository",
    "Changes of instances": "no model has a range of them",
}

#: Metrics without data here, with the reason.
ABSENT = {
    "inferd_jwks_age_seconds": "no issuer of tokens is configured",
    "inferd_gpu_memory_used_bytes": "the machine has no GPU",
}

PANELS = [panel for section in SECTIONS for panel in section.panels]


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A server under load, and a Prometheus that has scraped it several times."""
    with observed(tmp_path_factory.mktemp("observed")) as (served, prometheus):
        prometheus.wait_scraped(SCRAPES)
        yield served, prometheus


def _has_data(result):
    return any(not math.isnan(float(sample["value"][1])) for sample in result)


def _check_data(prometheus, expr, *, absent):
    """The query is valid, and returns data, on a busy machine after some more scrapes, unless it is ``absent``."""
    result = prometheus.query(expr)
    if not absent and not _has_data(result):
        eventually(lambda: _has_data(prometheus.query(expr)), f"data of {expr}")


def _of_grafana(expr):
    """Substitute Grafana's variables, with everything selected."""
    return re.sub(r"\$(job|instance|model)", ".*", expression(expr)).replace("$__rate_interval", "5s")


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_every_panel_has_data(watched, panel):
    """Each of its queries returns data."""
    _, prometheus = watched
    for query in panel.queries:
        _check_data(prometheus, _of_grafana(query.expr), absent=panel.title in WITHOUT_DATA)


def test_exceptions_are_existing_panels(watched):
    """No outdated names."""
    assert {panel.title for panel in PANELS} >= set(WITHOUT_DATA)


def test_every_rule_is_evaluated(watched):
    """Without errors, and recorded series have values."""
    _, prometheus = watched

    def rules():
        return [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]

    eventually(lambda: all(rule["health"] != "unknown" for rule in rules()), "each rule has been evaluated")
    assert {rule["health"] for rule in rules()} == {"ok"}, rules()
    recorded = [rule["name"] for rule in rules() if rule["type"] == "recording"]
    assert len(recorded) > 10
    for name in recorded:
        _check_data(prometheus, name, absent=False)


def test_alerts_use_existing_metrics(watched):
    """Whether they fire or not."""
    _, prometheus = watched
    alerts = [
        rule for group in yaml.safe_load((RULES / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
    ]
    for alert in alerts:
        prometheus.query(alert["expr"])
        for name in metrics_in(alert["expr"]) | set(re.findall(r"inferd:\w+:\w+", alert["expr"])):
            _check_data(prometheus, name, absent=name in ABSENT)


def test_runbook_queries_are_valid(watched):
    """Each query has data, unless it looks for errors."""
    _, prometheus = watched
    blocks = re.findall(r"```promql\n(.*?)```", (ROOT / "docs/operations.md").read_text(), re.DOTALL)
    queries = [query for block in blocks for query in block.split("\n\n")]
    assert len(queries) > 20
    for query in queries:
        looks_for_bad = re.search("==|<", query)
        _check_data(prometheus, query, absent=bool(looks_for_bad or metrics_in(query) & ABSENT.keys()))


def test_overload_fires_alerts(watched):
    """One model is overloaded; the other one is not."""
    _, prometheus = watched
    rejected = prometheus.query("inferd:rejected_requests:ratio5m")
    shares = {each["metric"]["model"]: float(each["value"][1]) for each in rejected}
    assert shares["slow"] > 0.1
    assert shares["digits"] == 0


def test_scrapes_do_not_fail(watched):
    """Prometheus parses OpenMetrics, the stricter format, every time; a busy machine may be late."""
    _, prometheus = watched
    refused = f"(up{{job='inferd'}} == bool 0) * (scrape_duration_seconds{{job='inferd'}} < bool {INTERVAL_S})"
    (found,) = prometheus.query(f"max_over_time(({refused})[1m:500ms])")
    assert found["value"][1] == "0"


def test_exemplars_have_trace_ids(watched):
    """Prometheus stores the ids of sampled calls with their buckets."""
    _, prometheus = watched
    now = time.time()
    series = prometheus.get(
        "query_exemplars", query="inferd_request_duration_seconds_bucket", start=f"{now - 60}", end=f"{now}"
    )
    found = [exemplar for each in series for exemplar in each["exemplars"]]
    assert found
    assert all(re.fullmatch("[0-9a-f]{32}", exemplar["labels"]["trace_id"]) for exemplar in found)


def _panels_of_each_kind():
    """Return the dashboard with one panel of each type and unit; all of them take eight seconds to draw."""
    panels = dashboard()["panels"]
    kinds = {(panel["type"], str(panel.get("fieldConfig")), str(panel.get("options"))): panel for panel in panels}
    return {"panels": list(kinds.values())}


def test_dashboard_can_be_drawn(watched, tmp_path, monkeypatch):
    """From the data of this Prometheus."""
    _, prometheus = watched
    monkeypatch.setattr(draw_dashboard, "dashboard", _panels_of_each_kind)
    now = time.time()
    draw(Source(f"http://{prometheus.address}", now - 10, now), tmp_path / "dashboard.png")
    assert (tmp_path / "dashboard.png").read_bytes().startswith(b"\x89PNG")


def _scrape(served):
    with urllib.request.urlopen(f"http://{served.server.http}/metrics", timeout=PATIENCE_S) as response:
        return response.read()


def test_callers_cannot_create_series(watched):
    """Unlimited models, versions, methods, request ids and metadata map to one series each, or none."""
    served, _ = watched
    before = len(_scrape(served).splitlines())
    with served.channel() as channel:
        infer = channel.unary_unary("/inferd.v1.InferenceService/Infer")
        for number in range(100):
            for made_up in (
                v1.InferRequest(model=f"invented-{number}", request_id=f"{number}"),
                v1.InferRequest(model="digits", version=f"{number + 100}"),
            ):
                with pytest.raises(grpc.RpcError):
                    infer(made_up.SerializeToString(), metadata=bearer(), timeout=PATIENCE_S)
            with pytest.raises(grpc.RpcError):
                channel.unary_unary(f"/made.up.Service/Method{number}")(b"", metadata=bearer(), timeout=PATIENCE_S)
    scraped = _scrape(served)
    assert b"invented" not in scraped
    assert b"Method9" not in scraped
    lines_of_a_series = 20
    assert len(scraped.splitlines()) - before <= 4 * lines_of_a_series


def test_promtool_accepts_metrics(watched):
    """Names, types, units and help texts follow Prometheus' conventions."""
    served, _ = watched
    scraped = _scrape(served)
    done = subprocess.run(
        [str(PROMTOOL), "check", "metrics"], input=scraped, check=False, capture_output=True, timeout=PATIENCE_S
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")

"""The Prometheus rules, the dashboard and the runbooks are consistent."""

import json
import re
import subprocess
from pathlib import Path

import yaml

from inferd.observability.metrics.generation import GENERATION_BOUNDS_S
from inferd.observability.metrics.histogram import DURATION_BOUNDS_S
from inferd.observability.timing import STAGES
from scripts.generate_dashboard import TARGET, dashboard
from tests.patience import PATIENCE_S
from tests.prometheus import PROMTOOL, RULES, metrics_in
from tests.server import ROOT
from tests.unit.observability.metrics.test_registry import NAMES

TESTS = ROOT / "tests/data/rules"
FILES = sorted(TESTS.glob("*.test.yaml"))


def _rules(file: Path) -> list[dict[str, object]]:
    return [rule for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


ALERTS = _rules(RULES / "alerts.yaml")
RECORDED = _rules(RULES / "recording.yaml")


def promtool(*arguments: str | Path, cwd: Path = ROOT) -> str:
    """Run promtool; an error fails the test."""
    command = [str(PROMTOOL), *map(str, arguments)]
    done = subprocess.run(command, check=False, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_rules() -> None:
    """As Prometheus does."""
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", *sorted(RULES.glob("*.yaml")))


def test_rules_with_synthetic_series() -> None:
    """Cases for promtool."""
    promtool("test", "rules", *(file.name for file in FILES), cwd=TESTS)


def test_every_recording_rule_is_tested_with_versions_and_restarts() -> None:
    """In the file with two models, two versions and two instances."""
    (fleet,) = yaml.safe_load((TESTS / "fleet.test.yaml").read_text())["tests"]
    asked = " ".join(case["expr"] for case in fleet["promql_expr_test"])
    assert {name for rule in RECORDED if (name := str(rule["record"])) not in asked} == set()
    assert {case["alertname"] for case in fleet["alert_rule_test"]} == {alert["alert"] for alert in ALERTS}


def test_every_alert_is_tested_firing_and_silent() -> None:
    """In any file of cases."""
    cases = [
        case
        for file in FILES
        for test in yaml.safe_load(file.read_text())["tests"]
        for case in test.get("alert_rule_test", ())
    ]
    for fires in (True, False):
        shown = {case["alertname"] for case in cases if bool(case["exp_alerts"]) is fires}
        expected = {alert["alert"] for alert in ALERTS}
        assert expected == shown, f"fires: {fires}"


def test_every_alert_has_runbook() -> None:
    """An entry each, with queries, linked by the alert; and no entry without an alert."""
    page = (ROOT / "docs/operations.md").read_text()
    entries = dict(re.findall(r"^### (Inferd\w+)\n(.*?)(?=^### |\Z)", page, re.MULTILINE | re.DOTALL))
    assert set(entries) == {alert["alert"] for alert in ALERTS}
    assert all("```promql\n" in entry and "\n- " in entry for entry in entries.values())
    for alert in ALERTS:
        assert alert["annotations"]["runbook"] == f"docs/operations.md#{alert['alert'].lower()}"
        assert alert["labels"]["severity"] in {"warning", "critical"}


def test_rules_and_runbooks_use_existing_metrics() -> None:
    """Names of metrics exist, and recorded names are recorded."""
    recorded = {rule["record"] for rule in RECORDED}
    page = (ROOT / "docs/operations.md").read_text()
    asked = [str(rule["expr"]) for rule in (*ALERTS, *RECORDED)]
    asked += re.findall(r"```promql\n(.*?)```", page, re.DOTALL)
    for expr in asked:
        assert metrics_in(expr) <= NAMES, expr
        assert set(re.findall(r"inferd:\w+:\w+", expr)) <= recorded, expr
        assert set(re.findall(r'stage="(\w+)"', expr)) <= set(STAGES), expr
        bounds = GENERATION_BOUNDS_S if "first_token" in expr else DURATION_BOUNDS_S
        assert set(map(float, re.findall(r'le="([\d.]+)"', expr))) <= set(bounds), expr


def test_rules_use_series_that_exist_from_start() -> None:
    """Otherwise the first increase is missed, as of stages of a version that has not run."""
    assert not [rule for rule in (*ALERTS, *RECORDED) if "inferd_stage_duration_seconds" in str(rule["expr"])]


def test_dashboard_is_current() -> None:
    """A changed panel needs a new file."""
    assert json.loads(TARGET.read_text()) == dashboard()


def test_dashboard_is_consistent() -> None:
    """Ids are unique, panels do not overlap, and variables are defined."""
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    variables = {variable["name"] for variable in dashboard()["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(panels)))
    assert used == variables | {"__rate_interval"}

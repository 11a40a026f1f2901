"""Generate Grafana's dashboard from its panels; ``--check`` only reports whether it is current."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.dashboard_panels import SECTIONS
from scripts.dashboard_parts import Panel

TARGET = Path(__file__).parents[1] / "helm/inferd/dashboards/inferd.json"

_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS = 24
_HEIGHT = 8

_ONE_SERVER = 'job=~"$job", instance=~"$instance"'
_ONE_MODEL = f'{_ONE_SERVER}, model=~"$model"'


def main() -> int:
    """Write the file or, with ``--check``, return 1 if it is outdated."""
    text = json.dumps(dashboard(), indent=2) + "\n"
    if "--check" in sys.argv:
        if TARGET.read_text(encoding="utf-8") == text:
            return 0
        print("stale dashboard: run 'make docs' and commit helm/inferd/dashboards", file=sys.stderr)
        return 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


def dashboard() -> dict[str, Any]:
    """Return the dashboard in a schema that Grafana 10 to 12 can import."""
    return {
        "uid": "inferd",
        "title": "inferd",
        "tags": ["inferd"],
        "schemaVersion": 38,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": list(_variables())},
        "annotations": {"list": []},
        "links": [],
        "panels": list(_panels()),
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}}
    for name, label, query in (
        ("job", "Job", "label_values(inferd_model_state, job)"),
        ("instance", "Instance", 'label_values(inferd_model_state{job=~"$job"}, instance)'),
        ("model", "Model", f"label_values(inferd_model_state{{{_ONE_SERVER}}}, model)"),
    ):
        yield {
            "name": name,
            "label": label,
            "type": "query",
            "datasource": _DATASOURCE,
            "query": {"query": query, "refId": name},
            "definition": query,
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
        }


def _panels() -> Iterator[dict[str, Any]]:
    number, top = 1, 0
    for section in SECTIONS:
        place = {"x": 0, "y": top, "w": _COLUMNS, "h": 1}
        yield {"id": number, "type": "row", "title": section.title, "collapsed": False, "gridPos": place, "panels": []}
        number, top, left = number + 1, top + 1, 0
        for panel in section.panels:
            if left + panel.width > _COLUMNS:
                top, left = top + _HEIGHT, 0
            yield _panel(panel, number, {"x": left, "y": top, "w": panel.width, "h": _HEIGHT})
            number, left = number + 1, left + panel.width
        top += _HEIGHT


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    heatmap = panel.kind == "heatmap"
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "gridPos": place,
        "datasource": _DATASOURCE,
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": _options(panel),
        "targets": [
            {
                "refId": chr(ord("A") + position),
                "datasource": _DATASOURCE,
                "expr": expression(query.expr),
                "legendFormat": query.legend,
                "format": "heatmap" if heatmap else "time_series",
                "exemplar": heatmap,
                "range": True,
            }
            for position, query in enumerate(panel.queries)
        ],
    }


def _field(panel: Panel) -> dict[str, Any]:
    if panel.kind == "heatmap":
        return {"custom": {"hideFrom": {"legend": False, "tooltip": False, "viz": False}}}
    field: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.kind == "timeseries":
        field["custom"] = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 5, "showPoints": "never"}
    return field


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "heatmap":
        return {
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Oranges", "scale": "exponential", "exponent": 0.5, "steps": 64},
            "exemplars": {"color": "rgba(255,0,255,0.7)"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "tooltip": {"show": True, "yHistogram": False},
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": panel.unit},
        }
    if panel.kind == "stat":
        return {
            "colorMode": "value",
            "graphMode": "area",
            "justifyMode": "auto",
            "orientation": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "textMode": "auto",
        }
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def expression(expr: str) -> str:
    """Return a panel's expression with its selectors."""
    return expr.replace("$M", _ONE_MODEL).replace("$S", _ONE_SERVER)


if __name__ == "__main__":
    sys.exit(main())

"""The manifests of docs/kubernetes.md are valid for the chart and the server."""

import re
from typing import Any

import yaml

from tests.chart.rendering import of_scenario, pod, rendered
from tests.server import ROOT

PAGE = (ROOT / "docs/kubernetes.md").read_text()


def _object(kind: str) -> dict[str, Any]:
    """Return the object of this kind on the page."""
    blocks = [block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "apiVersion:" in block]
    (found,) = [each for block in blocks for each in yaml.safe_load_all(block) if each["kind"] == kind]
    return found


def test_argo_cd() -> None:
    """Its values render, with everything that they enable."""
    source = _object("Application")["spec"]["source"]
    assert (ROOT / source["path"] / "Chart.yaml").exists()
    kinds = {kind for kind, _ in rendered(source["helm"]["valuesObject"])}
    assert {"ScaledObject", "ServiceMonitor", "PrometheusRule"} <= kinds


def test_flux() -> None:
    """Its values render, from the repository that it defines."""
    chart = _object("HelmRelease")["spec"]["chart"]["spec"]
    assert (ROOT / chart["chart"] / "Chart.yaml").exists()
    assert chart["sourceRef"] == {"kind": "GitRepository", "name": _object("GitRepository")["metadata"]["name"]}
    volumes = pod(rendered(_object("HelmRelease")["spec"]["values"]))["volumes"]
    assert any("persistentVolumeClaim" in volume for volume in volumes)


def test_edge() -> None:
    """One replica on one node, without a second one during an update."""
    objects = of_scenario("edge")
    spec = objects["Deployment", "rel-inferd"]["spec"]
    assert (spec["replicas"], spec["strategy"]["rollingUpdate"]["maxSurge"]) == (1, 0)
    assert not any(kind == "PodDisruptionBudget" for kind, _ in objects)

"""Autoscalers, monitors, rules and dashboard."""

import yaml

from tests.chart.rendering import CHART, Values, of_scenario, rendered

SELECTOR = {"app.kubernetes.io/name": "inferd", "app.kubernetes.io/instance": "rel"}
CERTIFICATE = {"enabled": True, "existingSecret": "certificate"}


def test_hpa_scales_by_load_and_utilization() -> None:
    """The load is a number of replicas, with a target for each."""
    spec = rendered({"autoscaling": {"mode": "hpa", "minReplicas": 3}})["HorizontalPodAutoscaler", "rel-inferd"]["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "rel-inferd"}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (3, 10)
    load, cpu = spec["metrics"]
    assert load["external"]["metric"] == {
        "name": "inferd_offered_load_replicas",
        "selector": {"matchLabels": {"job": "rel"}},
    }
    assert load["external"]["target"] == {"type": "AverageValue", "averageValue": "700m"}
    assert cpu["resource"]["target"]["averageUtilization"] == 90
    gpu = of_scenario("gpu")["HorizontalPodAutoscaler", "rel-inferd"]["spec"]["metrics"][1]
    assert gpu["pods"] == {
        "metric": {"name": "inferd_gpu_utilization_ratio"},
        "target": {"type": "AverageValue", "averageValue": "800m"},
    }


def test_keda_queries_offered_load() -> None:
    """By the recorded name; with a measured capacity, by rows only."""
    spec = of_scenario("everything")["ScaledObject", "rel-models"]["spec"]
    assert spec["scaleTargetRef"]["kind"] == "StatefulSet"
    load, cpu, gpu = spec["triggers"]
    assert load["metadata"]["query"] == 'sum(inferd:offered_load:replicas{namespace="ns", job="rel"})'
    assert (load["metricType"], load["metadata"]["threshold"]) == ("AverageValue", "0.7")
    assert load["authenticationRef"] == {"name": "prometheus"}
    assert (cpu["type"], cpu["metadata"]) == ("cpu", {"value": "90"})
    busiest = 'sum(max by (instance) (inferd_gpu_utilization_ratio{namespace="ns", job="rel"})) * 100'
    assert (gpu["metadata"]["threshold"], gpu["metadata"]["query"]) == ("85", busiest)
    assert spec["fallback"] == {"failureThreshold": 3, "replicas": 4}
    measured = of_scenario("keda")["ScaledObject", "rel-inferd"]["spec"]
    query = 'sum(inferd:offered_rows:rate2m{namespace="ns", job="rel"}) / 4300'
    assert measured["triggers"][0]["metadata"]["query"] == query
    recorded = (CHART / "rules/recording.yaml").read_text()
    assert "record: inferd:offered_load:replicas\n" in recorded
    assert "record: inferd:offered_rows:rate2m\n" in recorded


def test_both_autoscalers_have_same_target() -> None:
    """HPA and KEDA."""
    measured = {"rowsPerSecondPerReplica": 1000, "keda": {"serverAddress": "http://p"}}
    hpa = rendered({"autoscaling": {"mode": "hpa", **measured}})["HorizontalPodAutoscaler", "rel-inferd"]["spec"]
    keda = rendered({"autoscaling": {"mode": "keda", **measured}})["ScaledObject", "rel-inferd"]["spec"]
    assert hpa["metrics"][0]["external"]["target"]["averageValue"] == "700000m"
    assert keda["triggers"][0]["metadata"]["query"].endswith(" / 1000")
    assert keda["triggers"][0]["metadata"]["threshold"] == "0.7"
    assert hpa["behavior"] == keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]


def test_service_monitor_scrapes_each_replica_once() -> None:
    """The other Services select the same pods and must not match."""
    objects = of_scenario("keda")
    monitor = objects["ServiceMonitor", "rel-inferd"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    matching = [
        name
        for (kind, name), each in objects.items()
        if kind == "Service" and wanted <= each["metadata"]["labels"].items()
    ]
    assert matching == ["rel-inferd-metrics"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["path"], endpoint["interval"]) == ("metrics", "/metrics", "15s")
    # The job in the autoscalers' queries.
    service = objects["Service", "rel-inferd-metrics"]
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "rel"
    assert [port["name"] for port in service["spec"]["ports"]] == [endpoint["port"]]


def test_pod_monitor_scrapes_with_tls() -> None:
    """With the CA of the server's Secret, unless configured otherwise."""
    monitor = of_scenario("everything")["PodMonitor", "rel-models"]["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["scheme"] == "https"
    assert endpoint["tlsConfig"] == {
        "ca": {"secret": {"name": "inferd-certificate", "key": "ca.crt"}},
        "serverName": "rel-models.ns.svc",
    }
    assert monitor["selector"]["matchLabels"] == {**SELECTOR, "app.kubernetes.io/name": "models"}
    given: Values = {"podMonitor": {"enabled": True}, "tlsConfig": {"insecureSkipVerify": True}}
    objects = rendered({"tls": CERTIFICATE, "monitoring": given})
    assert objects["PodMonitor", "rel-inferd"]["spec"]["podMetricsEndpoints"][0]["tlsConfig"] == given["tlsConfig"]


def test_prometheus_rules_equal_files() -> None:
    """Templates of alerts are for Prometheus, not for helm."""
    files = [yaml.safe_load(file.read_text())["groups"] for file in sorted((CHART / "rules").glob("*.yaml"))]
    rule = of_scenario("keda")["PrometheusRule", "rel-inferd"]
    assert rule["spec"]["groups"] == [group for groups in files for group in groups]


def test_dashboard_equals_file() -> None:
    """To the last character."""
    dashboard = of_scenario("everything")["ConfigMap", "rel-models-dashboard"]
    assert dashboard["data"] == {"inferd.json": (CHART / "dashboards/inferd.json").read_text()}
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboard["metadata"]["annotations"]["grafana_folder"] == "inference"

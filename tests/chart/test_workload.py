"""The Deployment or StatefulSet, and the files of its pods."""

import hashlib
import json

import pytest

from tests.chart.rendering import (
    CHART,
    Object,
    Values,
    container,
    of_scenario,
    pod,
    rendered,
    server_settings,
    template,
)

SELECTOR = {"app.kubernetes.io/name": "inferd", "app.kubernetes.io/instance": "rel"}
CERTIFICATE = {"enabled": True, "existingSecret": "certificate"}


def _only(objects: dict[tuple[str, str], Object], kind: str) -> Object:
    (found,) = (each for (its_kind, _), each in objects.items() if its_kind == kind)
    return found


def test_minimal_release_is_small() -> None:
    """Only kinds of objects that a cluster without operators has."""
    assert set(of_scenario("minimal")) == {
        ("ConfigMap", "rel-inferd"),
        ("Deployment", "rel-inferd"),
        ("NetworkPolicy", "rel-inferd"),
        ("Pod", "rel-inferd-test"),
        ("PodDisruptionBudget", "rel-inferd"),
        ("Service", "rel-inferd"),
        ("Service", "rel-inferd-headless"),
        ("Service", "rel-inferd-metrics"),
        ("ServiceAccount", "rel-inferd"),
    }


def test_deployment_replaces_replicas_without_loss() -> None:
    """It starts one before it stops one, and waits for the drain."""
    objects = rendered({"drain": {"delaySeconds": 7, "graceSeconds": 40, "preStopSeconds": 3}})
    spec = _only(objects, "Deployment")["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    assert spec["selector"]["matchLabels"] == SELECTOR
    assert SELECTOR.items() <= spec["template"]["metadata"]["labels"].items()
    assert spec["progressDeadlineSeconds"] > 2 * 300
    server = server_settings(objects)["server"]
    assert (server["drain_delay_s"], server["drain_grace_s"]) == (7, 40)
    assert container(objects)["lifecycle"] == {"preStop": {"sleep": {"seconds": 3}}}
    # The rest is for closing sessions and flushing the log.
    assert pod(objects)["terminationGracePeriodSeconds"] == 3 + 7 + 40 + 10


def test_null_removes_a_default() -> None:
    """Of resources, and of the labels of the dashboard; it is an empty text, and no number of replicas."""
    monitoring = {"dashboard": {"enabled": True, "labels": None}}
    empty = {"resources": None, "replicas": None, "service": {"ipFamilyPolicy": None}}
    objects = rendered({**empty, "monitoring": monitoring})
    assert container(objects)["resources"] == {}
    assert _only(objects, "Deployment")["spec"]["replicas"] is None


def test_names_are_texts() -> None:
    """Names of other objects that look like numbers, or have line breaks, which Kubernetes then refuses by name."""
    values = {
        "image": {"pullSecrets": ["123"]},
        "serviceAccount": {"create": True, "name": "7"},
        "gpu": {"count": 1, "runtimeClassName": "nvidia\nhostNetwork: true"},
    }
    objects = rendered(values)
    spec = pod(objects)
    assert spec["imagePullSecrets"] == [{"name": "123"}]
    assert spec["serviceAccountName"] == _only(objects, "ServiceAccount")["metadata"]["name"] == "7"
    assert spec["runtimeClassName"] == "nvidia\nhostNetwork: true"


def test_autoscaled_workloads_set_no_replicas() -> None:
    """Otherwise each upgrade would reset the number."""
    for kind in ("Deployment", "StatefulSet"):
        assert "replicas" not in _only(rendered({"kind": kind, "autoscaling": {"mode": "hpa"}}), kind)["spec"]


def test_stateful_set_has_own_volumes_and_names() -> None:
    """And starts all replicas at once."""
    spec = _only(of_scenario("everything"), "StatefulSet")["spec"]
    assert spec["serviceName"] == "rel-models-headless"
    assert spec["podManagementPolicy"] == "Parallel"
    assert [each["metadata"]["name"] for each in spec["volumeClaimTemplates"]] == ["cache", "state"]
    assert "matchLabelKeys" not in json.dumps(spec["template"]["spec"]["topologySpreadConstraints"])


def test_probes_use_names_of_health_service() -> None:
    """With gRPC."""
    probes = container(rendered())
    for name in ("startup", "readiness"):
        assert probes[f"{name}Probe"]["grpc"] == {"port": 8001, "service": name}
    assert probes["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "metrics", "scheme": "HTTP"}
    assert probes["startupProbe"]["failureThreshold"] == 300


@pytest.mark.parametrize(
    ("values", "scheme"),
    [
        ({"tls": CERTIFICATE}, "HTTPS"),
        ({"tls": CERTIFICATE, "config": {"security": {"metrics_tls": False}}}, "HTTP"),
        ({"auth": {"tokens": {"existingSecret": "t"}}, "config": {"security": {"open_health": False}}}, "HTTP"),
        ({"probes": {"type": "http"}}, "HTTP"),
    ],
)
def test_probes_use_http_with_tls_or_credentials(values: Values, scheme: str) -> None:
    """The kubelet supports neither in gRPC probes."""
    probes = container(rendered(values))
    paths = {name: probes[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/livez"}
    assert {probes[f"{name}Probe"]["httpGet"]["scheme"] for name in paths} == {scheme}


def test_changed_settings_restart_replicas_but_rules_do_not() -> None:
    """The server reads its settings once, and reloads its rules."""

    def annotations(values: Values) -> dict[str, str]:
        return _only(rendered(values), "Deployment")["spec"]["template"]["metadata"]["annotations"]

    tokens = {"existingSecret": "tokens"}
    plain, other = ({"auth": {"tokens": tokens, "policy": {"rules": [{"principals": [who]}]}}} for who in "ab")
    assert annotations(plain) == annotations(other)
    changed = plain | {"config": {"log": {"level": "debug"}}}
    assert annotations(plain)["checksum/config"] != annotations(changed)["checksum/config"]
    assert len(annotations(plain)["checksum/config"]) == len(hashlib.sha256().hexdigest())


def test_config_map_has_values_and_chart_settings() -> None:
    """The built-in model is the default; large numbers stay numbers."""
    settings = server_settings(rendered({"config": {"queue": {"max_bytes": 2_000_000_000}}}))
    assert "models" not in settings
    assert settings["queue"] == {"max_bytes": 2_000_000_000}
    assert settings["server"]["host"] == "0.0.0.0"
    assert settings["server"]["connections"] == {"max_age_s": 300}
    assert settings["log"] == {"format": "json"}


def test_models_come_from_every_source() -> None:
    """Each is mounted read-only at the path that the server serves."""
    objects = of_scenario("everything")
    assert server_settings(objects, "rel-models")["models"] == [
        "/models/volume",
        "/models/fetched",
        "/models/image",
        "/models/extra",
        "s3://bucket/models",
        "words=hf://org/words",
    ]
    mounts = {mount["mountPath"]: mount for mount in container(objects)["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod(objects)["volumes"]}
    for path, kind in (("volume", "persistentVolumeClaim"), ("fetched", "emptyDir"), ("image", "image")):
        mount = mounts[f"/models/{path}"]
        assert mount["readOnly"] is True
        assert kind in volumes[mount["name"]]
    fetch = pod(objects)["initContainers"][0]
    assert {"name": "fetched-models", "mountPath": "/models/fetched"} in fetch["volumeMounts"]
    assert fetch["command"][:3] == ["aws", "s3", "sync"]


def test_replicas_are_spread_over_nodes_and_zones() -> None:
    """Those of the same revision."""
    rules = pod(rendered({"topologySpread": {"zones": "DoNotSchedule"}}))["topologySpreadConstraints"]
    assert {rule["topologyKey"]: rule["whenUnsatisfiable"] for rule in rules} == {
        "kubernetes.io/hostname": "ScheduleAnyway",
        "topology.kubernetes.io/zone": "DoNotSchedule",
    }
    assert all(rule["matchLabelKeys"] == ["pod-template-hash"] for rule in rules)
    assert "topologySpreadConstraints" not in pod(rendered({"topologySpread": {"hosts": "", "zones": ""}}))


def test_gpus_are_requested_by_profile() -> None:
    """Such a replica is scheduled to GPU nodes, and fails without a GPU."""
    objects = of_scenario("gpu")
    spec = pod(objects)
    assert container(objects)["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == 1
    assert spec["runtimeClassName"] == "nvidia"
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    assert [each["key"] for each in spec["tolerations"]] == ["dedicated", "nvidia.com/gpu"]
    assert server_settings(objects)["runtime"]["providers"] == ["cuda"]
    whole = rendered({"gpu": {"count": 2}, "config": {"runtime": {"providers": ["tensorrt", "cuda"]}}})
    assert container(whole)["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert server_settings(whole)["runtime"]["providers"] == ["tensorrt", "cuda"]


def test_extra_values() -> None:
    """Arguments, environment, volumes, containers and objects, whose text may use the chart's templates."""
    objects = of_scenario("everything")
    server = container(objects)
    assert server["args"] == [
        "serve",
        "--config",
        "/etc/inferd/config/inferd.yaml",
        "--host",
        "[::]",
        "--set",
        "log.level=debug",
    ]
    assert {"name": "TZ", "value": "UTC"} in server["env"]
    assert {"configMapRef": {"name": "inferd-environment"}} in server["envFrom"]
    assert {"name": "extra", "mountPath": "/models/extra"} in server["volumeMounts"]
    assert [each["name"] for each in pod(objects)["containers"]] == ["inferd", "sidecar"]
    assert [each["name"] for each in pod(objects)["initContainers"]] == ["fetch-models", "wait"]
    assert objects["ConfigMap", "rel-more"]["data"] == {"version": "0.1.0"}
    assert ("ConfigMap", "rel-models-text") in objects


def test_traces_name_the_pod() -> None:
    """With the downward API, which must survive the JSON around it."""
    (resource,) = (
        each["value"] for each in container(of_scenario("everything"))["env"] if each["name"].startswith("INFERD_")
    )
    assert json.loads(resource)["k8s.pod.name"] == "$(POD_NAME)"
    by_environment: Values = {
        "extraEnv": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4318"}],
        "networkPolicy": {"restrictEgress": False},
    }
    assert {"name": "INFERD_TRACING__RESOURCE", "value": resource} in container(rendered(by_environment))["env"]


def test_scheduling_and_dns_are_configurable() -> None:
    """With the cluster's defaults otherwise."""
    spec = pod(of_scenario("everything"))
    assert spec["schedulerName"] == "bin-packing"
    assert (spec["dnsPolicy"], spec["dnsConfig"]["nameservers"]) == ("None", ["10.0.0.10"])
    assert spec["hostAliases"] == [{"ip": "10.1.2.3", "hostnames": ["issuer.example"]}]
    assert not {"schedulerName", "dnsPolicy", "dnsConfig", "hostAliases", "nodeSelector"} & set(pod(rendered()))


def test_templates_render_no_go_nil() -> None:
    """No template prints Go's text for a missing value."""
    for name in ("minimal", "everything"):
        text = template("--values", str(CHART / "ci" / f"{name}-values.yaml"))
        assert "<no value>" not in text
        assert "<nil>" not in text

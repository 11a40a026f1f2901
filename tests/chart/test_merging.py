"""Keys of several values are merged, and duplicates of unique names are rejected."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.chart.rendering import (
    CHART,
    SCENARIOS,
    Object,
    RefusedError,
    Values,
    container,
    parsed,
    rendered,
    scenario,
    template,
)

DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())

#: Labels that identify objects.
IDENTITY = ("app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/managed-by")
REFUSED = {*IDENTITY, "app.kubernetes.io/component", "checksum/config"}


def _paths(ending: str, values: dict[str, Any] = DEFAULTS, prefix: str = "") -> Iterator[str]:
    """Return the dotted names of all values with this suffix."""
    for name, below in values.items():
        if isinstance(below, dict):
            if name.lower().endswith(ending):
                yield prefix + name
            yield from _paths(ending, below, f"{prefix}{name}.")


def _put(values: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """Set a value by its dotted name."""
    *folders, last = path.split(".")
    here = values
    for folder in folders:
        here = here.setdefault(folder, {})
    here[last] = value
    return values


LABELS = tuple(_paths("labels"))
ANNOTATIONS = tuple(_paths("annotations"))


#: Objects that have their own map, besides the common one.
OWN = {
    "labels": {
        "pods": "podLabels",
        "Job": "batch.labels",
        "Job-pods": "batch.podLabels",
        "ServiceMonitor": "monitoring.serviceMonitor.labels",
        "PodMonitor": "monitoring.podMonitor.labels",
        "PrometheusRule": "monitoring.rules.labels",
        "ConfigMap-dashboard": "monitoring.dashboard.labels",
    },
    "annotations": {
        "pods": "podAnnotations",
        "Job": "batch.annotations",
        "Job-pods": "batch.podAnnotations",
        "ServiceAccount": "serviceAccount.annotations",
        "Service": "service.annotations",
        "ConfigMap-dashboard": "monitoring.dashboard.annotations",
        "GRPCRoute": "grpcRoute.annotations",
        "Ingress": "ingress.annotations",
        "HTTPRoute": "httpRoute.annotations",
        "Ingress-http": "httpIngress.annotations",
    },
}


def _metadata(objects: dict[tuple[str, str], Object]) -> Iterator[tuple[str, Object]]:
    """Return the metadata of all objects of the chart by kind, including that of the workload's pods."""
    for (kind, name), each in objects.items():
        if name in {"rel-more", "rel-models-text"}:
            continue
        yield kind + re.sub("^rel-(inferd|models)(-batch-[0-9a-f]{8})?", "", name), each["metadata"]
        if kind in {"Deployment", "StatefulSet", "Job"}:
            yield "Job-pods" if kind == "Job" else "pods", each["spec"]["template"]["metadata"]


def test_knows_all_maps_of_values() -> None:
    """Otherwise the test below would miss one."""
    assert set(LABELS) == {"commonLabels", *OWN["labels"].values()}
    assert set(ANNOTATIONS) == {"commonAnnotations", *OWN["annotations"].values()}


@pytest.mark.parametrize("sort", OWN)
@pytest.mark.parametrize("name", SCENARIOS)
def test_merges_maps_with_precedence_of_object(name: str, sort: str) -> None:
    """Each map has all keys, including the chart's, so that every pair of maps collides at some object."""
    plain = _metadata(parsed(template("--values", scenario(name))))
    keys = {"example.com/shared"} | {key for _, metadata in plain for key in metadata.get(sort, {})}
    keys = {key for key in keys if key not in REFUSED and not key.startswith("helm.sh/hook")}
    common = f"common{sort.capitalize()}"
    values: Values = {}
    for path in (common, *OWN[sort].values()):
        _put(values, path, dict.fromkeys(sorted(keys), path))
    for what, metadata in _metadata(parsed(template("--values", scenario(name), values=values))):
        assert {metadata[sort][key] for key in keys} == {OWN[sort].get(what, common)}, what


@pytest.mark.parametrize("path", LABELS)
@pytest.mark.parametrize("key", IDENTITY)
def test_rejects_identity_labels(path: str, key: str) -> None:
    """Another value would separate a Deployment from its pods, or an object from its release."""
    with pytest.raises(RefusedError, match=f"{path}: the chart itself sets {key}"):
        rendered(_put({}, path, {key: "mine"}))


def test_component_label_is_for_pods_only() -> None:
    """The ServiceMonitor selects by it."""
    key = "app.kubernetes.io/component"
    with pytest.raises(RefusedError, match=f"commonLabels: the chart itself sets {key}"):
        rendered({"commonLabels": {key: "models"}})
    labels = rendered({"podLabels": {key: "models"}})["Deployment", "rel-inferd"]["spec"]["template"]["metadata"][
        "labels"
    ]
    assert labels[key] == "models"


@pytest.mark.parametrize("path", ANNOTATIONS)
@pytest.mark.parametrize("key", ["checksum/config", "helm.sh/hook", "meta.helm.sh/release-name"])
def test_rejects_annotations_for_helm(path: str, key: str) -> None:
    """A hook would not be part of its release."""
    with pytest.raises(RefusedError, match=f"{path}: the chart or helm itself sets {key}"):
        rendered(_put({}, path, {key: "mine"}))


def test_empty_value_overrides_common_one() -> None:
    """An empty string is a value."""
    values = {"commonLabels": {"team": "search"}, "podLabels": {"team": ""}}
    deployment = rendered(values)["Deployment", "rel-inferd"]
    assert deployment["metadata"]["labels"]["team"] == "search"
    assert deployment["spec"]["template"]["metadata"]["labels"]["team"] == ""


_TRACED = {"config": {"tracing": {"endpoint": "http://x"}}, "networkPolicy": {"restrictEgress": False}}
_A: dict[str, Any] = {"name": "a"}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"extraEnv": [_A, _A]}, "extraEnv: got a twice"),
        (
            {**_TRACED, "extraEnv": [{"name": "POD_NAME", "value": "x"}]},
            "extraEnv: the chart itself sets POD_NAME",
        ),
        ({"extraEnv": [{"name": "INFERD_SERVER__GRPC_PORT"}]}, "use the value ports.grpc instead"),
        ({"extraEnv": [{"name": "INFERD_SERVER__HOST"}]}, "use the value config.server.host instead"),
        ({"extraEnv": [{"name": "INFERD_SECURITY__TLS__CERT_FILE"}]}, "use the value tls instead"),
        ({"extraEnv": [{"name": "INFERD_CONFIG"}]}, "use the value config instead"),
        (
            {"extraArgs": ["--grpc-port=9"]},
            "extraArgs: the chart itself sets --grpc-port=9, use the value ports.grpc",
        ),
        ({"extraArgs": ["--config", "/x"]}, "extraArgs: the chart itself sets --config, use the value config"),
        ({"extraArgs": ["--set", "security.tls.cert_file=/x"]}, "use the value tls instead"),
        ({"models": {"fetch": {"env": [_A, _A]}}}, "models.fetch.env: got a twice"),
        ({"extraVolumes": [_A, _A]}, "extraVolumes: got a twice"),
        ({"extraVolumes": [{"name": "tmp"}]}, "extraVolumes: the chart itself sets tmp"),
        (
            {"kind": "StatefulSet", "extraVolumes": [_A], "volumeClaimTemplates": [{"metadata": _A}]},
            "volumeClaimTemplates: the chart itself sets a",
        ),
        (
            {"extraVolumeMounts": [{"name": "a", "mountPath": "/tmp"}]},
            "extraVolumeMounts: the chart itself sets /tmp",
        ),
        (
            {"extraVolumeMounts": [{"name": n, "mountPath": "/a"} for n in "ab"]},
            "extraVolumeMounts: got /a twice",
        ),
        ({"extraContainers": [{"name": "inferd"}]}, "extraContainers: the chart itself sets inferd"),
        (
            {"extraContainers": [_A], "extraInitContainers": [_A]},
            "extraInitContainers: the chart itself sets a",
        ),
        (
            {"extraContainers": [{"name": "a", "ports": [{"containerPort": 8001}]}]},
            "extraContainers: ports of a: the chart itself sets 8001",
        ),
        (
            {"extraContainers": [{"name": "a", "ports": [{"containerPort": 1, "name": "metrics"}]}]},
            "extraContainers: ports of a: the chart itself sets metrics",
        ),
    ],
)
def test_rejects_duplicate_names(values: Values, text: str) -> None:
    """Kubernetes would use the last one, or reject all with an unclear error."""
    with pytest.raises(RefusedError) as refused:
        rendered(values)
    assert text in str(refused.value)


def test_accepts_names_that_are_free() -> None:
    """A name that the chart uses only with other values is free."""
    values: Values = {
        "extraEnv": [{"name": "POD_NAME", "value": "x"}, {"name": "INFERD_LOG__LEVEL", "value": "debug"}],
        "extraArgs": ["--set", "batching.max_batch_size=8", "--log-format=text"],
        "extraVolumes": [{"name": "tls", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "tls", "mountPath": "/etc/inferd/tls"}],
        "extraContainers": [{"name": "a", "ports": [{"containerPort": 9000}, {"containerPort": 9001}]}],
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "gpu": {"count": 1},
    }
    objects = rendered(values)
    assert [each["name"] for each in container(objects)["env"]] == ["POD_NAME", "INFERD_LOG__LEVEL"]
    spec = objects["Deployment", "rel-inferd"]["spec"]["template"]["spec"]
    assert spec["tolerations"] == values["tolerations"]

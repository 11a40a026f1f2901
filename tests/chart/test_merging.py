"""Keys that come from several values stand once, and what can stand once only is refused by its name."""

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

#: Labels that tell whose objects are whose.
IDENTITY = ("app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/managed-by")
REFUSED = {*IDENTITY, "app.kubernetes.io/component", "checksum/config"}


def _paths(ending: str, values: dict[str, Any] = DEFAULTS, prefix: str = "") -> Iterator[str]:
    """Return the dotted names of all values whose name ends so."""
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


#: Objects that have a map of their own, beside the common one.
OWN = {
    "labels": {
        "pods": "podLabels",
        "ServiceMonitor": "monitoring.serviceMonitor.labels",
        "PodMonitor": "monitoring.podMonitor.labels",
        "PrometheusRule": "monitoring.rules.labels",
        "ConfigMap-dashboard": "monitoring.dashboard.labels",
    },
    "annotations": {
        "pods": "podAnnotations",
        "ServiceAccount": "serviceAccount.annotations",
        "Service": "service.annotations",
        "ConfigMap-dashboard": "monitoring.dashboard.annotations",
        "GRPCRoute": "grpcRoute.annotations",
        "Ingress": "ingress.annotations",
    },
}


def _metadata(objects: dict[tuple[str, str], Object]) -> Iterator[tuple[str, Object]]:
    """Return the metadata of all of the chart's objects by what they are, that of the workload's pods too."""
    for (kind, name), each in objects.items():
        if name in {"rel-more", "rel-models-text"}:
            continue
        yield kind + re.sub("^rel-(inferd|models)", "", name), each["metadata"]
        if kind in {"Deployment", "StatefulSet"}:
            yield "pods", each["spec"]["template"]["metadata"]


def test_every_map_is_an_objects_own_or_the_common_one() -> None:
    """Or the test below would not look at it."""
    assert set(LABELS) == {"commonLabels", *OWN["labels"].values()}
    assert set(ANNOTATIONS) == {"commonAnnotations", *OWN["annotations"].values()}


@pytest.mark.parametrize("sort", OWN)
@pytest.mark.parametrize("name", SCENARIOS)
def test_no_key_stands_twice_and_the_objects_own_wins(name: str, sort: str) -> None:
    """Each map has all keys that there are, those of the chart too: every pair of them meets at some object."""
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
def test_labels_that_objects_are_found_by_are_refused(path: str, key: str) -> None:
    """Another value would part a Deployment from its pods, or the object from its release."""
    with pytest.raises(RefusedError, match=f"{path}: the chart itself sets {key}"):
        rendered(_put({}, path, {key: "mine"}))


def test_the_label_that_tells_services_apart_is_for_pods_only() -> None:
    """The ServiceMonitor goes by it."""
    key = "app.kubernetes.io/component"
    with pytest.raises(RefusedError, match=f"commonLabels: the chart itself sets {key}"):
        rendered({"commonLabels": {key: "models"}})
    labels = rendered({"podLabels": {key: "models"}})["Deployment", "rel-inferd"]["spec"]["template"]["metadata"][
        "labels"
    ]
    assert labels[key] == "models"


@pytest.mark.parametrize("path", ANNOTATIONS)
@pytest.mark.parametrize("key", ["checksum/config", "helm.sh/hook", "meta.helm.sh/release-name"])
def test_annotations_that_make_helm_do_other_things_are_refused(path: str, key: str) -> None:
    """A hook is not part of its release."""
    with pytest.raises(RefusedError, match=f"{path}: {key} is what the chart or helm itself sets"):
        rendered(_put({}, path, {key: "mine"}))


def test_an_empty_value_is_one_too() -> None:
    """It takes the place of the common one."""
    values = {"commonLabels": {"team": "search"}, "podLabels": {"team": ""}}
    deployment = rendered(values)["Deployment", "rel-inferd"]
    assert deployment["metadata"]["labels"]["team"] == "search"
    assert deployment["spec"]["template"]["metadata"]["labels"]["team"] == ""


_TRACED = {"config": {"tracing": {"endpoint": "http://x"}}, "networkPolicy": {"restrictEgress": False}}
_A: dict[str, Any] = {"name": "a"}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"extraEnv": [_A, _A]}, "extraEnv: a stands there twice"),
        (
            {**_TRACED, "extraEnv": [{"name": "POD_NAME", "value": "x"}]},
            "extraEnv: POD_NAME is what the chart itself sets",
        ),
        ({"extraEnv": [{"name": "INFERD_SERVER__GRPC_PORT"}]}, "use the value ports.grpc instead"),
        ({"extraEnv": [{"name": "INFERD_SERVER__HOST"}]}, "use the value config.server.host instead"),
        ({"extraEnv": [{"name": "INFERD_SECURITY__TLS__CERT_FILE"}]}, "use the value tls instead"),
        ({"extraEnv": [{"name": "INFERD_CONFIG"}]}, "use the value config instead"),
        (
            {"extraArgs": ["--grpc-port=9"]},
            "extraArgs: --grpc-port=9 is what the chart itself sets, use the value ports.grpc",
        ),
        ({"extraArgs": ["--config", "/x"]}, "extraArgs: --config is what the chart itself sets, use the value config"),
        ({"extraArgs": ["--set", "security.tls.cert_file=/x"]}, "use the value tls instead"),
        ({"models": {"fetch": {"env": [_A, _A]}}}, "models.fetch.env: a stands there twice"),
        ({"extraVolumes": [_A, _A]}, "extraVolumes: a stands there twice"),
        ({"extraVolumes": [{"name": "tmp"}]}, "extraVolumes: tmp is what the chart itself sets"),
        (
            {"kind": "StatefulSet", "extraVolumes": [_A], "volumeClaimTemplates": [{"metadata": _A}]},
            "volumeClaimTemplates: a is what the chart itself sets",
        ),
        (
            {"extraVolumeMounts": [{"name": "a", "mountPath": "/tmp"}]},
            "extraVolumeMounts: /tmp is what the chart itself",
        ),
        (
            {"extraVolumeMounts": [{"name": n, "mountPath": "/a"} for n in "ab"]},
            "extraVolumeMounts: /a stands there twice",
        ),
        ({"extraContainers": [{"name": "inferd"}]}, "extraContainers: inferd is what the chart itself sets"),
        (
            {"extraContainers": [_A], "extraInitContainers": [_A]},
            "extraInitContainers: a is what the chart itself sets",
        ),
        (
            {"extraContainers": [{"name": "a", "ports": [{"containerPort": 8001}]}]},
            "extraContainers: ports of a: 8001 is what the chart itself sets",
        ),
        (
            {"extraContainers": [{"name": "a", "ports": [{"containerPort": 1, "name": "metrics"}]}]},
            "extraContainers: ports of a: metrics is what the chart itself sets",
        ),
    ],
)
def test_names_that_can_be_given_once_are_refused_the_second_time(values: Values, text: str) -> None:
    """Kubernetes would take the last, or refuse all without saying whose it was."""
    with pytest.raises(RefusedError) as refused:
        rendered(values)
    assert text in str(refused.value)


def test_what_is_named_once_is_taken() -> None:
    """A name that the chart uses with other values only is free."""
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

"""The pod that `helm test` runs."""

import json
from typing import Any

import pytest

from tests.chart.rendering import Values, of_scenario, pod, rendered
from tests.server import ROOT


def _test_arguments(values: Values) -> list[str]:
    return rendered(values)["Pod", "rel-inferd-test"]["spec"]["containers"][0]["args"]


def test_helm_test_infers_a_digit() -> None:
    """The demo digit of the package."""
    command, model, *options = _test_arguments({})
    assert (command, model) == ("infer", "digits")
    picture = options[options.index("--input") + 1].removeprefix("X=")
    assert json.loads(picture) == json.loads((ROOT / "inferd/demo/digit.json").read_text())
    assert options[-2:] == ["--address", "rel-inferd.ns.svc:8001"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_helm_test_calls_over_both_protocols(scheme: str) -> None:
    """The same in two containers; only over gRPC if HTTP is off."""
    tls = {"enabled": scheme == "https", "existingSecret": "certificate" if scheme == "https" else ""}
    over_grpc, over_http = rendered({"tls": tls})["Pod", "rel-inferd-test"]["spec"]["containers"]
    assert over_http["args"][-2:] == ["--address", f"{scheme}://rel-inferd.ns.svc:8000"]
    differ = {"name", "args"}
    assert {key: over_http[key] for key in over_http.keys() - differ} == {
        key: over_grpc[key] for key in over_grpc.keys() - differ
    }
    assert over_http["args"][:-1] == over_grpc["args"][:-1]
    off = rendered({"http": {"enabled": False}})["Pod", "rel-inferd-test"]["spec"]["containers"]
    assert [each["name"] for each in off] == ["test"]


def test_helm_test_adapts_to_release() -> None:
    """It lists unknown models, checks only health without a token, and infers with given arguments."""
    models: dict[str, Any] = {"persistentVolumeClaim": {"claimName": "models"}}
    tokens = {"tokens": {"existingSecret": "tokens"}}
    assert _test_arguments({"models": models})[0] == "models"
    assert _test_arguments({"auth": tokens})[:3] == ["health", "--service", "readiness"]
    shown = _test_arguments({"auth": tokens, "test": {"token": {"existingSecret": "t"}}})
    assert (shown[0], shown[-3]) == ("infer", "--allow-insecure-token")
    told = {"infer": ["resnet", "--input", "x=[1]"]}
    assert _test_arguments({"models": models, "test": told})[:4] == ["infer", *told["infer"]]


def test_helm_test_has_required_credentials() -> None:
    """CA, certificate and token."""
    spec = of_scenario("tls-auth")["Pod", "rel-inferd-test"]["spec"]
    for test in spec["containers"]:
        assert "--ca" in test["args"]
        assert "--certificate" in test["args"]
        assert test["env"][0]["valueFrom"] == {"secretKeyRef": {"name": "inferd-test-token", "key": "token"}}
        assert {mount["name"] for mount in test["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}


#: Scheduling and DNS for a cluster with tainted nodes of several kinds.
_PLACE: dict[str, Any] = {
    "nodeSelector": {"pool": "inference"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "priorityClassName": "serving",
    "schedulerName": "bin-packing",
    "dnsPolicy": "None",
    "dnsConfig": {"nameservers": ["10.0.0.10"]},
    "hostAliases": [{"ip": "10.1.2.3", "hostnames": ["rel-inferd.ns.svc"]}],
}


def test_helm_test_is_scheduled_like_server() -> None:
    """On the same nodes, with the same account and restrictions, but not selected as one of its pods."""
    nodes = {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [
                {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["a"]}]}
            ]
        }
    }
    apart = {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname"}]}
    given: Values = {
        **_PLACE,
        "affinity": {"nodeAffinity": nodes, "podAntiAffinity": apart},
        "image": {"pullSecrets": ["registry", "registry"]},
        "gpu": {"count": 1, "runtimeClassName": "nvidia"},
        "serviceAccount": {"create": False, "name": "mine"},
    }
    objects = rendered(given)
    server, test = pod(objects), objects["Pod", "rel-inferd-test"]["spec"]
    same = {*_PLACE, "imagePullSecrets", "serviceAccountName", "securityContext", "enableServiceLinks"}
    assert {name: test[name] for name in same} == {name: server[name] for name in same}
    assert {each["key"] for each in test["tolerations"]} == {"dedicated", "nvidia.com/gpu"}
    assert test["imagePullSecrets"] == [{"name": "registry"}]
    assert server["affinity"] == given["affinity"]
    # It may run beside a replica, and needs no GPU.
    assert test["affinity"] == {"nodeAffinity": nodes}
    assert not {"topologySpreadConstraints", "runtimeClassName"} & set(test)
    assert "nvidia.com/gpu" not in test["containers"][0]["resources"]["limits"]

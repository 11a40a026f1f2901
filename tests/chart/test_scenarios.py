"""Every scenario in ci/ is accepted by both releases of helm, and its objects by every release of Kubernetes."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import inferd
from inferd.config.loading import load_settings
from inferd.config.settings import Settings
from inferd.security.authorization.policy import read_policy
from tests.chart.rendering import (
    CHART,
    HELMS,
    NEEDS,
    PATIENCE_S,
    SCENARIOS,
    VERSIONS,
    Object,
    RefusedError,
    helm,
    of_scenario,
    parsed,
    scenario,
    template,
)
from tests.server import ROOT

VALIDATE = ROOT / ".tools/kubernetes-validate/bin/kubernetes-validate"


def _supported(name: str) -> list[str]:
    return VERSIONS[VERSIONS.index(NEEDS.get(name, VERSIONS[0])) :]


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("binary", HELMS)
def test_helm_lint_passes(binary: str, name: str) -> None:
    """Warnings count as errors."""
    assert "0 chart(s) failed" in helm(binary, "lint", "--strict", CHART, "--values", scenario(name))


@pytest.mark.parametrize("name", SCENARIOS)
def test_both_helm_releases_render_same_objects(name: str) -> None:
    """The text differs in empty lines."""
    three, four = (parsed(template("--values", scenario(name), binary=binary)) for binary in HELMS)
    assert three == four


def _is_known(each: Object) -> bool:
    """Whether the object is one of Kubernetes itself, not of an operator or the Gateway API."""
    group = each["apiVersion"].rpartition("/")[0]
    return "." not in group or group == "networking.k8s.io"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("binary", HELMS)
def test_objects_match_kubernetes_schemas(binary: str, version: str, tmp_path: Path) -> None:
    """Of that release, without unknown fields."""
    files = []
    objects = 0
    for name in SCENARIOS:
        if version in _supported(name):
            file = tmp_path / f"{name}.yaml"
            file.write_text(template("--values", scenario(name), binary=binary, version=version))
            files.append(file)
            objects += len(list(filter(_is_known, parsed(file.read_text()).values())))
    assert files
    command = [VALIDATE, "--kubernetes-version", version, "--strict", *files]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" passed for resource ") == objects


@pytest.mark.parametrize("name", NEEDS)
def test_rejects_older_kubernetes(name: str) -> None:
    """Instead of silently dropping fields."""
    with pytest.raises(RefusedError, match=r"needs Kubernetes 1\.3. or newer, this is v1\.28\.0"):
        template("--values", scenario(name), "--set", "batch.maxFailedIndexes=", version="1.28")


@pytest.mark.parametrize("name", SCENARIOS)
def test_settings_are_valid(name: str, tmp_path: Path) -> None:
    """Validated as at startup, including rules."""
    texts = {
        file: text
        for each in of_scenario(name).values()
        if each["kind"] == "ConfigMap"
        for file, text in each.get("data", {}).items()
    }
    (tmp_path / "inferd.yaml").write_text(texts["inferd.yaml"])
    settings = load_settings(config_file=tmp_path / "inferd.yaml", flags={})
    assert isinstance(settings, Settings)
    assert settings.server.host in {"0.0.0.0", "[::]"}
    assert ("policy.yaml" in texts) is (settings.security.policy_file is not None)
    if settings.security.policy_file is not None:
        (tmp_path / "policy.yaml").write_text(texts["policy.yaml"])
        read_policy(tmp_path / "policy.yaml")


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_pod_meets_the_restricted_standard(name: str) -> None:
    """The server, the Job, the test pod and the init container for models; extra containers are the user's."""
    specs = list(_pods(of_scenario(name)))
    assert specs
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        for container in (*spec["containers"], *spec.get("initContainers", ())):
            if container["name"] in {"inferd", "fetch-models", "test"}:
                _is_restricted(container)


def _pods(objects: dict[tuple[str, str], Object]) -> Iterator[Object]:
    for (kind, _), each in objects.items():
        if kind == "Pod":
            yield each["spec"]
        elif kind in {"Deployment", "StatefulSet", "Job"}:
            yield each["spec"]["template"]["spec"]


def _is_restricted(container: Object) -> None:
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert "privileged" not in context
    assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_object_has_labels(name: str) -> None:
    """Release and tool, except for extra objects."""
    for (_, called), each in of_scenario(name).items():
        if called not in {"rel-more", "rel-models-text"}:
            assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == "rel"
            assert each["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"


def test_every_template_is_rendered_by_some_scenario() -> None:
    """Otherwise a template would not be tested."""
    shown = "".join(template("--values", scenario(name)) for name in SCENARIOS)
    for file in (CHART / "templates").rglob("*.yaml"):
        assert f"# Source: inferd/{file.relative_to(CHART)}\n" in shown, file


def test_chart_has_version_of_server() -> None:
    """Its appVersion is the tag of the image."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == inferd.__version__

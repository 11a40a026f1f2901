"""Values about models that come and go, and what the server and its pods get."""

import re

import pytest
import yaml

from inferd.config.settings import Settings
from tests.chart.rendering import RefusedError, Values, container, of_scenario, pod, rendered, server_settings
from tests.server import ROOT

_STATE = {"name": "models-state", "mountPath": "/var/lib/inferd"}
_TEMPLATES = [{"metadata": {"name": "state"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]


def _models(**values: object) -> Values:
    return {"models": {"control": values}}


def test_nothing_changes_by_default() -> None:
    """The models of the start are served, and one that fails costs nothing else."""
    assert server_settings(rendered())["repository"] == {"mode": "none", "readiness": "any", "exit_on_error": False}


def test_polling() -> None:
    """With its interval, and readiness of all models."""
    values: Values = {"models": {"control": {"mode": "poll", "pollIntervalSeconds": 30}, "readiness": "all"}}
    repository = server_settings(rendered(values))["repository"]
    assert repository == {"mode": "poll", "poll_interval_s": 30, "readiness": "all", "exit_on_error": False}


def test_explicit_control_with_a_volume_of_each_replica() -> None:
    """The server accepts the settings; its file is in the volume of the claim template."""
    objects = of_scenario("everything")
    settings = Settings.model_validate(server_settings(objects, "rel-models"))
    repository = settings.repository
    assert (repository.mode.value, repository.load, repository.readiness.value) == ("explicit", ["resnet"], "all")
    assert repository.exit_on_error
    assert str(repository.remember) == "/var/lib/inferd/models.json"
    assert {"name": "state", "mountPath": "/var/lib/inferd"} in container(objects)["volumeMounts"]
    assert "state" not in [volume["name"] for volume in pod(objects)["volumes"]]


def test_explicit_control_with_a_volume() -> None:
    """Of any kind."""
    objects = rendered(_models(mode="explicit", remember={"volume": {"emptyDir": {"sizeLimit": "1Mi"}}}))
    assert {"name": "models-state", "emptyDir": {"sizeLimit": "1Mi"}} in pod(objects)["volumes"]
    assert _STATE in container(objects)["volumeMounts"]


def test_claim_of_a_single_replica() -> None:
    """It is accepted where there is one only."""
    claim = {"persistentVolumeClaim": {"claimName": "state"}}
    objects = rendered({"replicas": 1, **_models(mode="explicit", remember={"volume": claim})})
    assert {"name": "models-state", **claim} in pod(objects)["volumes"]


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (_models(mode="manual"), "mode"),
        (_models(load=["digits"]), "models.control.load: expected models.control.mode explicit beside it, got none"),
        (
            _models(mode="poll", remember={"volume": {"emptyDir": {}}}),
            "models.control.remember.volume: expected models.control.mode explicit beside it, got poll",
        ),
        (
            {
                "kind": "StatefulSet",
                "volumeClaimTemplates": _TEMPLATES,
                **_models(mode="explicit", remember={"volume": {"emptyDir": {}}, "claimTemplate": "state"}),
            },
            "models.control.remember: expected either volume or claimTemplate, got both",
        ),
        (
            _models(mode="explicit", remember={"claimTemplate": "state"}),
            "models.control.remember.claimTemplate: expected the name of one of volumeClaimTemplates, got state",
        ),
        (
            _models(mode="explicit", remember={"volume": {"persistentVolumeClaim": {"claimName": "state"}}}),
            "models.control.remember.volume: a claim is for a single replica",
        ),
        (
            {"config": {"repository": {"mode": "poll"}}},
            "config.repository.mode: the chart sets it, use the value models.control.mode",
        ),
    ],
)
def test_refused(values: Values, error: str) -> None:
    """Contradictions, by name."""
    with pytest.raises(RefusedError, match=error):
        rendered(values)


def test_language_models() -> None:
    """The example of the README: memory of the cache, and a test that generates."""
    (text,) = [block for block in _blocks() if "generationCache" in block]
    objects = rendered(yaml.safe_load(text))
    assert Settings.model_validate(server_settings(objects)).generation.cache_bytes == 2**30
    arguments = objects["Pod", "rel-inferd-test"]["spec"]["containers"][0]["args"]
    assert arguments[:3] == ["generate", "smollm2", "What is the capital of France?"]
    assert "generation" not in server_settings(rendered())
    with pytest.raises(RefusedError, match=r"use the value models\.generationCache"):
        rendered({"config": {"generation": {"cache_bytes": 2**30}}})


def _blocks() -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", (ROOT / "helm/inferd/README.md.in").read_text(), re.DOTALL)

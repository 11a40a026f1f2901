"""Values about models in remote storage, their cache, and the memory of models."""

import pytest

from inferd.config.settings import Settings
from tests.chart.rendering import RefusedError, Values, container, of_scenario, pod, rendered, server_settings

_ALLOWED: Values = {"networkPolicy": {"restrictEgress": False}}
_S3 = {"addresses": ["s3://bucket/models"]}


def test_models_in_remote_storage() -> None:
    """The server reads them itself, into a cache that restarts of the container find again."""
    objects = rendered({"models": {"remote": _S3}, **_ALLOWED})
    settings = Settings.model_validate(server_settings(objects))
    assert settings.models == ["s3://bucket/models"]
    assert str(settings.remote.cache) == "/var/cache/inferd/files"
    assert settings.remote.cache_bytes == 16 * 2**30
    assert str(settings.runtime.verdict_cache) == "/var/cache/inferd/verdicts"
    assert {"name": "models-cache", "mountPath": "/var/cache/inferd"} in container(objects)["volumeMounts"]
    assert {"name": "models-cache", "emptyDir": {"sizeLimit": "20Gi"}} in pod(objects)["volumes"]


def test_uses_claim_for_cache() -> None:
    """Without remote models it has what is known of others."""
    claim = {"persistentVolumeClaim": {"claimName": "cache"}}
    objects = rendered({"models": {"cache": {"size": "500Mi", "volume": claim}}})
    assert {"name": "models-cache", **claim} in pod(objects)["volumes"]
    assert server_settings(objects)["remote"] == {"cache": "/var/cache/inferd/files", "cache_bytes": 400 * 2**20}


def test_no_cache_by_default() -> None:
    """Models of volumes and images need none."""
    objects = rendered()
    assert "models-cache" not in [volume["name"] for volume in pod(objects)["volumes"]]
    assert "remote" not in server_settings(objects)


def test_credentials_by_reference() -> None:
    """They are in no object of the chart."""
    remote = {
        **_S3,
        "env": [{"name": "AWS_REGION", "value": "eu-central-1"}],
        "envFrom": [{"secretRef": {"name": "s3"}}],
    }
    found = container(
        rendered({"models": {"remote": remote}, "extraEnvFrom": [{"secretRef": {"name": "other"}}]} | _ALLOWED)
    )
    assert found["env"] == remote["env"]
    assert found["envFrom"] == [{"secretRef": {"name": "s3"}}, {"secretRef": {"name": "other"}}]


def test_everything() -> None:
    """The server accepts the settings; each replica has its own cache."""
    objects = of_scenario("everything")
    settings = Settings.model_validate(server_settings(objects, "rel-models"))
    assert settings.models[-2:] == ["s3://bucket/models", "words=hf://org/words"]
    assert settings.repository.on_demand
    assert settings.repository.memory_budget_bytes == 6 * 2**30
    assert settings.repository.device_memory_budget_bytes == 16 * 2**30
    assert settings.remote.cache_bytes == 8 * 2**30
    assert {"name": "cache", "mountPath": "/var/cache/inferd"} in container(objects)["volumeMounts"]
    assert "cache" not in [volume["name"] for volume in pod(objects)["volumes"]]


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"models": {"remote": _S3}}, "models.remote: the network policy forbids connections from the pods"),
        ({"models": {"remote": {"addresses": ["bucket/models"]}}}, "addresses"),
        ({"models": {"memoryBudget": "6GB"}}, "memoryBudget"),
        ({"models": {"cache": {"claimTemplate": "cache"}}}, "models.cache.claimTemplate: expected the name of one of"),
        (
            {"models": {"cache": {"claimTemplate": "cache", "volume": {"emptyDir": {}}}}},
            "models.cache: expected either volume or claimTemplate, got both",
        ),
        (
            {"config": {"repository": {"memory_budget_bytes": 2**30}}},
            "config.repository.memory_budget_bytes: the chart sets it, use the value models.memoryBudget",
        ),
    ],
)
def test_refused_values(values: Values, error: str) -> None:
    """With the reason."""
    with pytest.raises(RefusedError, match=error):
        rendered(values)

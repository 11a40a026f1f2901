"""The output of `inferd config`, and the generated page of settings."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from inferd.config.loading import effective_yaml, json_schema
from inferd.config.settings import Settings
from tests.unit.config.conftest import Load

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("values", [{}, {"models": ["/models/ä"], "queue": {"policy": "block", "max_rows": 99}}])
def test_effective_yaml_loads_as_the_same_settings(load: Load, values: dict[str, object]) -> None:
    """The output can be used as a configuration file."""
    settings = Settings.model_validate({**values, "batching": {"max_batch_size": 8}})
    assert load(effective_yaml(settings)) == settings


def test_effective_yaml_includes_defaults() -> None:
    """Every setting is written, whether set or not."""
    assert yaml.safe_load(effective_yaml(Settings()))["server"]["grpc_port"] == 8001


def test_schema_describes_every_setting() -> None:
    """Editors can show descriptions and flag unknown names."""
    schema = json_schema()
    assert schema["$id"] == "urn:inferd:settings"
    undescribed = [
        f"{section}.{name}"
        for section, body in schema["$defs"].items()
        for name, value in body.get("properties", {}).items()
        if "description" not in value
    ]
    assert undescribed == []
    assert all(not body["additionalProperties"] for body in schema["$defs"].values() if body["type"] == "object")


def test_configuration_page_is_current() -> None:
    """docs/configuration.md matches the output of its script."""
    script = ROOT / "scripts" / "generate_configuration_doc.py"
    check = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert (check.returncode, check.stdout + check.stderr) == (0, "")

"""What `inferd config` prints, and the page that is made of the same facts."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from inferd.config import Settings, effective_yaml, json_schema
from tests.unit.config.conftest import Load

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("values", [{}, {"models": ["/models/ä"], "queue": {"policy": "block", "max_rows": 99}}])
def test_effective_settings_are_a_file_that_gives_the_same(load: Load, values: dict[str, object]) -> None:
    """What is printed can be used as the configuration file."""
    settings = Settings.model_validate({**values, "batching": {"max_batch_size": 8}})
    assert load(effective_yaml(settings)) == settings


def test_effective_settings_name_every_setting() -> None:
    """Defaults are written out."""
    assert yaml.safe_load(effective_yaml(Settings()))["server"]["grpc_port"] == 8001


def test_schema_describes_every_setting() -> None:
    """Editors show the description of each, and complain of unknown ones."""
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


def test_the_page_of_settings_is_current() -> None:
    """docs/configuration.md is what the script writes."""
    script = ROOT / "scripts" / "generate_configuration_doc.py"
    check = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert (check.returncode, check.stdout + check.stderr) == (0, "")

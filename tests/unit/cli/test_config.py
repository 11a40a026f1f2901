"""``inferd config``."""

import json

import yaml


def test_effective_settings(inferd, monkeypatch, tmp_path):
    """The output has the values of file and environment, and is a settings file itself."""
    monkeypatch.setenv("INFERD_QUEUE__MAX_ROWS", "128")
    file = tmp_path / "inferd.yaml"
    file.write_text("server:\n  grpc_port: 9001\n")
    result = inferd("config", "--config", file)
    settings = yaml.safe_load(result.out)
    assert result.exit_code == 0
    assert (settings["queue"]["max_rows"], settings["server"]["grpc_port"]) == (128, 9001)


def test_ignores_variables_of_the_client(inferd, monkeypatch):
    """A token in the environment is neither an error nor printed."""
    monkeypatch.setenv("INFERD_TOKEN", "s3cret")
    result = inferd("config")
    assert result.exit_code == 0
    assert "s3cret" not in result.out


def test_schema(inferd):
    """The JSON Schema is printed."""
    assert "server" in json.loads(inferd("config", "--schema").out)["properties"]


def test_invalid_settings(inferd, tmp_path):
    """Exit code 2, and the text of `SettingsError`."""
    file = tmp_path / "inferd.yaml"
    file.write_text("server:\n  grpc_port: 99999\n")
    result = inferd("config", "-c", file)
    assert (result.exit_code, result.out) == (2, "")
    assert "grpc_port" in result.err
    assert "99999" in result.err

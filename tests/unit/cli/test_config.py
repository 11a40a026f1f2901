"""``inferd config``."""

import json

import yaml


def test_settings_in_force(inferd, monkeypatch, tmp_path):
    """What the file and the environment set is in the output, which is a settings file itself."""
    monkeypatch.setenv("INFERD_QUEUE__MAX_ROWS", "128")
    file = tmp_path / "inferd.yaml"
    file.write_text("server:\n  grpc_port: 9001\n")
    ended = inferd("config", "--config", file)
    settings = yaml.safe_load(ended.out)
    assert ended.exit_code == 0
    assert (settings["queue"]["max_rows"], settings["server"]["grpc_port"]) == (128, 9001)


def test_the_clients_variables_are_no_settings(inferd, monkeypatch):
    """A token in the environment is neither refused nor printed."""
    monkeypatch.setenv("INFERD_TOKEN", "s3cret")
    ended = inferd("config")
    assert ended.exit_code == 0
    assert "s3cret" not in ended.out


def test_schema(inferd):
    """The JSON Schema is printed as JSON."""
    assert "server" in json.loads(inferd("config", "--schema").out)["properties"]


def test_refused_settings(inferd, tmp_path):
    """A wrong setting ends with 2 and the text of the settings' own error."""
    file = tmp_path / "inferd.yaml"
    file.write_text("server:\n  grpc_port: 99999\n")
    ended = inferd("config", "-c", file)
    assert (ended.exit_code, ended.out) == (2, "")
    assert "grpc_port" in ended.err
    assert "99999" in ended.err

"""A model's own settings over the server's."""

import pytest

from inferd.config.settings import Settings
from inferd.models.model_yaml import read_model_settings
from inferd.runtime.errors import ModelLoadError

SERVER = Settings.model_validate({"batching": {"max_batch_size": 8, "instances": 2}})


def test_without_a_file_the_server_s_settings_hold():
    """All of them."""
    assert read_model_settings(SERVER, None).batching == SERVER.batching


@pytest.mark.parametrize("content", ["", "# nothing yet\n"])
def test_an_empty_file_changes_nothing(content, tmp_path):
    """Comments are no settings."""
    (tmp_path / "model.yaml").write_text(content)
    assert read_model_settings(SERVER, tmp_path / "model.yaml").batching == SERVER.batching


def test_a_file_goes_over_the_server_s_settings(tmp_path):
    """Setting by setting."""
    (tmp_path / "model.yaml").write_text("batching:\n  max_batch_size: 16\ninputs:\n  x:\n    batch_axis: null\n")
    settings = read_model_settings(SERVER, tmp_path / "model.yaml")
    assert (settings.batching.max_batch_size, settings.batching.instances) == (16, 2)
    assert settings.inputs["x"].model_fields_set == {"batch_axis"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"batching: [", "model.yaml line 1: is not YAML: "),
        (b"\xff\xfe\xff", "model.yaml: expected UTF-8 text"),
        (b"a: \x00", "model.yaml: is not YAML: "),
        (
            b"inputs:\n  x:\n    batch_axis: 0\n    batch_axis: 1\n",
            r"model.yaml line 4: inputs\.x\.batch_axis is set on line 3 already",
        ),
        (b"- batching\n", "model.yaml: expected settings by name, got list"),
        (b"1: 2\n", "model.yaml: expected settings by name"),
        (b"batching:\n  max_batch_size: 0\n", r"batching\.max_batch_size: .* got 0 .*model\.yaml"),
        (b"batchin:\n  max_batch_size: 1\n", r"batchin: .* did you mean batching.*model\.yaml"),
        (b"server:\n  grpc_port: 1\n", r"server: no such setting .*model\.yaml"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(content, message, tmp_path):
    """With its name and the field."""
    (tmp_path / "model.yaml").write_bytes(content)
    with pytest.raises(ModelLoadError, match=message):
        read_model_settings(SERVER, tmp_path / "model.yaml")


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    """With the system's reason."""
    with pytest.raises(ModelLoadError, match=r"model\.yaml cannot be read: No such file"):
        read_model_settings(SERVER, tmp_path / "model.yaml")

"""The settings of a model version."""

from pathlib import Path

import pytest

from inferd.config.settings import ModelSettings, Settings
from inferd.models.model_source import ModelSource
from inferd.models.settings import limit_threads, read_model_settings
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.providers import CPU, CUDA

SERVER = Settings.model_validate({"batching": {"max_batch_size": 8, "instances": 2}})


def source(config: Path | None = None, **files: Path) -> ModelSource:
    return ModelSource(name="m", version="1", path=Path("m/1/model.onnx"), config=config, **files)


def test_server_settings_without_a_file():
    """They apply unchanged."""
    assert read_model_settings(SERVER, source()).batching == SERVER.batching


@pytest.mark.parametrize("content", ["", "# nothing yet\n"])
def test_empty_file(content, tmp_path):
    """It changes nothing."""
    (tmp_path / "model.yaml").write_text(content)
    assert read_model_settings(SERVER, source(tmp_path / "model.yaml")).batching == SERVER.batching


def test_file_overrides_server_settings(tmp_path):
    """Only the settings that it names."""
    (tmp_path / "model.yaml").write_text("batching:\n  max_batch_size: 16\ninputs:\n  x:\n    batch_axis: null\n")
    settings = read_model_settings(SERVER, source(tmp_path / "model.yaml"))
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
def test_rejects_invalid_files(content, message, tmp_path):
    """The error names the file and the field."""
    (tmp_path / "model.yaml").write_bytes(content)
    with pytest.raises(ModelLoadError, match=message):
        read_model_settings(SERVER, source(tmp_path / "model.yaml"))


def test_rejects_unreadable_files(tmp_path):
    """The error includes the system's reason."""
    with pytest.raises(ModelLoadError, match=r"model\.yaml cannot be read: No such file"):
        read_model_settings(SERVER, source(tmp_path / "model.yaml"))


def threads(versions: int, cores: int, available: tuple[str, ...] = (CPU,), **runtime: object) -> int:
    settings = Settings.model_validate({"runtime": runtime}).for_model({})
    assert isinstance(settings, ModelSettings)
    limited = limit_threads(settings, versions=versions, cores=cores, available=list(available))
    assert limited.batching is settings.batching
    return limited.runtime.intra_op_threads


@pytest.mark.parametrize(
    ("versions", "cores", "expected"),
    [(1, 2, 0), (80, 2, 0), (81, 2, 1), (200, 2, 1), (1, 64, 0), (9, 64, 0), (20, 64, 29), (200, 64, 3), (1000, 64, 1)],
)
def test_limit_of_threads(versions: int, cores: int, expected: int) -> None:
    """0 means all cores. With a limit, all threads together stay within the bound."""
    assert threads(versions, cores) == expected
    assert versions * max(expected - 1, 0) <= 64 + 8 * cores


def test_explicit_threads_are_kept() -> None:
    """Whatever the number of versions."""
    assert threads(1000, 64, intra_op_threads=16) == 16


def test_no_limit_on_an_accelerator() -> None:
    """A run has one thread there anyway; the limit applies on the CPU."""
    assert threads(200, 64, (CUDA, CPU)) == 0
    assert threads(200, 64, (CUDA, CPU), providers=["cpu"]) == 3
    assert threads(200, 64, (CPU,), providers=["unknown"]) == 3

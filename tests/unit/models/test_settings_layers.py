"""Settings from config.pbtxt, model.yaml and the config of a load, one over the other."""

from pathlib import Path

from inferd.config.settings import Settings
from inferd.models.repository import ModelSource
from inferd.models.settings import read_model_settings

CONFIG = 'platform: "onnxruntime_onnx"\nmax_batch_size: {}\ninstance_group [ {{ count: {} kind: KIND_CPU }} ]\n'


def source(folder: Path, **files: str) -> ModelSource:
    paths = {}
    (folder / "m").mkdir()
    for kind, content in files.items():
        paths[kind] = folder / "m" / kind
        paths[kind].write_text(content)
    return ModelSource(name="m", version="1", path=folder / "m" / "1" / "model.onnx", **paths)


def test_config_pbtxt(tmp_path):
    """Alone, it decides; the rest is the server's."""
    settings = read_model_settings(Settings(), source(tmp_path, triton=CONFIG.format(8, 2)))
    assert (settings.batching.max_batch_size, settings.batching.instances) == (8, 2)
    assert settings.queue == Settings().queue


def test_model_yaml_precedes_config_pbtxt(tmp_path, caplog):
    """Field by field, and what it replaces is logged with both values."""
    caplog.set_level("INFO")
    files = source(tmp_path, triton=CONFIG.format(8, 2), config="batching:\n  max_batch_size: 16\n")
    settings = read_model_settings(Settings(), files)
    assert (settings.batching.max_batch_size, settings.batching.instances) == (16, 2)
    assert caplog.messages == ["model.yaml of model m replaces batching.max_batch_size (8 by 16)"]


def test_config_of_a_load_precedes_both(tmp_path, caplog):
    """It stands for the config.pbtxt, whose other fields do not apply."""
    caplog.set_level("INFO")
    files = source(
        tmp_path,
        triton=CONFIG.format(8, 3),
        config="batching:\n  max_batch_size: 16\n",
        override='backend: "onnxruntime"\nmax_batch_size: 32\n',
    )
    settings = read_model_settings(Settings(), files)
    assert (settings.batching.max_batch_size, settings.batching.instances) == (32, 1)
    assert caplog.messages == ["the config of the load of model m replaces batching.max_batch_size (16 by 32)"]


def test_fields_without_a_meaning_are_named_once(tmp_path, caplog):
    """In one warning for the model."""
    config = (
        CONFIG.format(8, 1) + "optimization { input_pinned_memory { enable: true } }\nresponse_cache { enable: true }\n"
    )
    read_model_settings(Settings(), source(tmp_path, triton=config))
    (warning,) = caplog.messages
    assert "model m: fields of triton without a meaning here: " in warning
    assert "response_cache" in warning
    assert "pinned" in warning

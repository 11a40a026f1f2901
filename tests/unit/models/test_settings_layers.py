"""Settings from config.pbtxt, model.yaml and the config of a load, one over the other."""

from dataclasses import replace
from pathlib import Path

import pytest

from inferd.config.settings import Settings
from inferd.models.model_source import ModelSource
from inferd.models.settings import read_model_settings
from inferd.runtime.errors import ModelLoadError

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


def test_early_readers_log_nothing(tmp_path, caplog):
    """Only the one that loads the model."""
    caplog.set_level("INFO")
    config = CONFIG.format(8, 1) + "response_cache { enable: true }\ninstance_group { kind: KIND_GPU }\n"
    files = source(tmp_path, triton=config, config="batching:\n  max_batch_size: 16\n")
    read_model_settings(Settings(), files, log=False)
    assert not caplog.messages
    read_model_settings(Settings(), files)
    assert len(caplog.messages) == 3


def test_differences_are_logged(tmp_path, caplog):
    """What is honoured in another way than by Triton is no warning."""
    caplog.set_level("INFO")
    config = 'backend: "onnxruntime"\nmax_batch_size: 8\ninstance_group [ { kind: KIND_GPU } ]\n'
    read_model_settings(Settings(), source(tmp_path, triton=config))
    assert [(record.levelname, record.message) for record in caplog.records] == [
        (
            "INFO",
            "model m: differences to Triton: instance_group KIND_GPU: where no GPU is found, the model runs on the CPU",
        )
    ]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"triton": CONFIG.format(8, 65)},
            "batching.instances: .*, got 65 \\(config.pbtxt line 3, instance_group.count\\)",
        ),
        (
            {"triton": CONFIG.format(8, 2), "config": "batching:\n  instances: 65\n"},
            "batching.instances: .*, got 65 \\(model.yaml line 2\\)",
        ),
        (
            {"config": "batching: {instances: 2}\n", "override": CONFIG.format(8, 65)},
            "batching.instances: .*, got 65 \\(the config of the load field instance_group.count\\)",
        ),
        ({"config": "batching: {}\nqueues: {}\n"}, "^queues: .* queue\\? \\(model.yaml line 2\\)$"),
        ({"config": "loose_dimensions:\n- n\n- 5\n"}, "loose_dimensions.1: .* \\(model.yaml line 3\\)$"),
        ({"config": "queue: {max_rows: 8}\n"}, "batching.max_batch_size: .*, got 64 \\(model.yaml\\)"),
        ({"triton": CONFIG.format(-1, 2)}, "^triton: max_batch_size: expected a number from 0, got -1$"),
        ({"triton": CONFIG.format("", 2)}, "^triton line 2: max_batch_size: a number is missing"),
    ],
)
def test_errors_name_the_file(tmp_path, files, expected):
    """That is the one with the invalid value, its line, and the field of a config.pbtxt."""
    with pytest.raises(ModelLoadError, match=expected):
        read_model_settings(Settings(), source(tmp_path, **files))


def test_config_beside_others(tmp_path):
    """The name in it is that of the model's directory, or any if the operator gives the model another one."""
    (tmp_path / "m" / "configs").mkdir(parents=True)
    config = tmp_path / "m" / "configs" / "h100.pbtxt"
    model = tmp_path / "m" / "1" / "model.onnx"
    for name in ("m", "alias", "other"):
        config.write_text(f'name: "{name}"\nplatform: "onnxruntime_onnx"\nmax_batch_size: 8\n')
        found = ModelSource(name="alias", version="1", path=model, triton=config)
        assert read_model_settings(Settings(), found).batching.max_batch_size == 8
    found = replace(found, name="m")
    with pytest.raises(
        ModelLoadError, match=r'^h100\.pbtxt: name: expected "m", the name of the directory, got "other"'
    ):
        read_model_settings(Settings(), found)

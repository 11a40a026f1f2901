"""Versions that are language models: settings without a meaning, loading, the memory of their cache, their files."""

import json
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from inferd.config.settings import Settings
from inferd.errors import InvalidInputError, ModelUnavailableError
from inferd.models.fingerprint import fingerprint_of
from inferd.models.language import loading
from inferd.models.language.probing import open_as_served
from inferd.models.language.settings import language_settings
from inferd.models.loaded import LoadedLanguageModel
from inferd.models.model_directory import RepositoryError
from inferd.models.model_source import ModelSource, model_file
from inferd.models.registry import ModelRegistry
from inferd.models.repository import resolve
from inferd.models.residency import Memory
from inferd.models.settings import read_model_settings
from inferd.models.states import ModelState
from inferd.runtime.errors import ModelLoadError, SessionClosedError
from tests import onnx_models
from tests.decoder_models import write_tiny_decoder
from tests.patience import PATIENCE_S
from tests.unit.models.managers import manager_of
from tests.unit.models.model_files import touch

_TOKEN_BYTES = 512
_CONTEXT = 256


def language(**given: object):
    settings = Settings.model_validate({"batching": {"max_batch_size": 16}})
    return language_settings(settings.for_model(given), settings.for_model({}), "lm")


def test_settings_without_a_meaning(caplog):
    """Those of the model are named in one warning, those of the server are not; none has an effect."""
    settings = language(
        batch_axes="none",
        loose_dimensions=["sequence"],
        batching={"instances": 2, "max_wait_ms": 3},
        routing={"shadow": {"version": 2}, "labels": {"stable": 1}},
        generation={"max_sequences": 4},
    )
    assert settings.batch_axes == "auto"
    assert settings.batching.max_instances == 1
    assert (settings.routing.shadow, settings.routing.labels) == (None, {"stable": "1"})
    assert settings.generation.max_sequences == 4
    ignored = "batch_axes, loose_dimensions, batching.max_wait_ms, batching.instances, routing.shadow"
    assert caplog.messages == [f"model lm generates text: settings without a meaning for it: {ignored}"]


def test_without_batching():
    """One sequence at a time."""
    assert language(batching={"enabled": False}).generation.max_sequences == 1


def test_caller_runs(caplog):
    """Is refused, wherever it comes from."""
    with pytest.raises(ModelLoadError, match=r"^queue\.policy: expected reject, block or shed_oldest"):
        language(queue={"policy": "caller_runs"})


class Fixture:
    """A manager of what is in a directory."""

    def __init__(self, root: Path, **settings: dict) -> None:
        self.registry = ModelRegistry()
        self.states: list[ModelState] = []
        self.manager = manager_of(
            Settings.model_validate({"runtime": {"verdict_cache": None}, **settings}),
            self.registry,
            on_state=lambda version: self.states.append(version.state),
        )
        found: dict[str, dict[str, ModelSource]] = {}
        for source in resolve([root]):
            found.setdefault(source.name, {})[source.version] = source
        loaded = threading.Event()
        self.manager.start(found, loaded.set)
        assert loaded.wait(PATIENCE_S)


def test_load_and_unload(tmp_path):
    """By the stages of all models; its full cache counts, but does not take memory yet."""
    write_tiny_decoder(tmp_path / "lm" / "1")
    (tmp_path / "lm" / "model.yaml").write_text("generation: {max_sequences: 2}\n")
    fixture = Fixture(tmp_path)
    version = fixture.registry.get("lm")
    generator, text, limits = version.generator, version.text, version.generation_limits
    assert None not in (generator, text, limits)
    assert (limits.context_length, limits.vocabulary_size) == (_CONTEXT, 384)
    assert generator.cache_bytes == 2 * _CONTEXT * _TOKEN_BYTES
    assert (version.signature, version.batcher, version.max_batch_size) == (None, None, 2)
    assert version.verdict.reason == ""
    assert version.memory_bytes >= generator.cache_bytes
    manager = fixture.manager
    assert manager.memory_bytes() == version.memory_bytes
    assert manager.resident_bytes() == version.memory_bytes - generator.cache_bytes
    assert not version.is_unfinished
    with pytest.raises(InvalidInputError, match='model "lm" is a language model') as caught:
        version.require_signature()
    assert caught.value.at == "model"
    decoder = version.language.decoder
    assert manager.stop(10)
    assert fixture.states == [
        ModelState.LOADING,
        ModelState.VERIFYING,
        ModelState.WARMING,
        ModelState.READY,
        ModelState.UNLOADING,
        ModelState.UNAVAILABLE,
    ]
    assert (version.generator, version.text, version.generation_limits) == (None, None, None)
    with pytest.raises(SessionClosedError):
        decoder.decode([0], [0])
    with pytest.raises(ModelUnavailableError):
        version.require_signature()


def test_no_warm_up(tmp_path, monkeypatch):
    """Only sequences beside each other are tried."""
    write_tiny_decoder(tmp_path / "lm" / "1", tokenizer=False)
    monkeypatch.delattr(loading, "warm_up")
    fixture = Fixture(tmp_path, runtime={"warmup": False, "verdict_cache": None})
    assert fixture.registry.get("lm").text is None
    assert fixture.manager.stop(10)


def test_model_that_differs_beside_others(tmp_path, monkeypatch, caplog):
    """It is served; the log and its description say so."""
    write_tiny_decoder(tmp_path / "lm" / "1")
    monkeypatch.setattr("inferd.generation.trial._difference", lambda one, other: 1e-5 * (len(one) > 1))
    fixture = Fixture(tmp_path)
    reason = "beside others, the logits of a sequence differ by up to 1e-05 from those alone"
    assert fixture.registry.get("lm").verdict.reason == reason
    assert f"model.onnx: {reason}" in caplog.text
    assert fixture.manager.stop(10)


class Sizes:
    """A decoder with a cache of 8 sequences of 4096 tokens."""

    slots = 8
    context_length = 4096
    cache_bytes_per_token = 100
    on_accelerator = False


_FULL = 8 * 4096 * 100


@pytest.mark.parametrize(
    ("given", "free", "budget", "promised", "expected"),
    [
        (None, 10 * _FULL, None, 0, _FULL),
        (None, _FULL, None, 0, _FULL // 2),
        (None, 2 * _FULL, None, _FULL, _FULL // 2),
        (None, 10 * _FULL, 2 * _FULL, 0, _FULL // 2),
        (None, 0, None, 0, 1024 * 100),
        (None, 0, None, _FULL, 1024 * 100),
        (2**20, 10 * _FULL, None, 0, 2**20),
        (10 * _FULL, 0, None, 0, _FULL),
    ],
)
def test_size_of_the_cache(monkeypatch, given, free, budget, promised, expected):
    """What is set, or half of the free memory and a quarter of the budget at most; never more than all slots.

    What other caches may still take is not free.
    """
    monkeypatch.setattr(loading, "available_bytes", lambda *_: free)
    settings = Settings().for_model({"generation": {"cache_bytes": given}})
    assert loading._cache_bytes(Sizes(), settings, budget, promised) == expected


def test_cache_on_a_device(monkeypatch):
    """All of it is there from the start."""
    monkeypatch.setattr(Sizes, "on_accelerator", True)
    assert loading._cache_bytes(Sizes(), Settings().for_model({}), None, 0) == _FULL


def test_cache_that_is_filled():
    """What sequences have written is not missing from what the process takes."""
    generator = SimpleNamespace(cache_bytes_written=300)
    model = SimpleNamespace(generator=generator)
    loaded = LoadedLanguageModel(model=model, reserved=Memory(1000))
    assert loaded.unused_cache_bytes == 700
    generator.cache_bytes_written = 1200
    assert loaded.unused_cache_bytes == 0


def test_file_among_several(tmp_path):
    """The one that genai_config.json names; without it, there is none to choose."""
    touch(tmp_path, "m/a.onnx", "m/b.onnx")
    with pytest.raises(RepositoryError, match=r"expected one \.onnx file, found a\.onnx, b\.onnx"):
        resolve([tmp_path / "m"])
    config = tmp_path / "m" / "genai_config.json"
    config.write_text(json.dumps({"model": {"decoder": {"filename": "b.onnx"}}}))
    (source,) = resolve([tmp_path / "m"])
    assert model_file(source) == tmp_path / "m" / "b.onnx"
    config.write_text(json.dumps({"model": {"decoder": {"filename": "../b.onnx"}}}))
    with pytest.raises(ModelLoadError, match=r"genai_config\.json: model\.decoder\.filename"):
        model_file(source)
    config.write_text(json.dumps({"model": {}}))
    with pytest.raises(ModelLoadError, match=r"genai_config\.json: expected model\.decoder\.filename"):
        model_file(source)


def test_all_files_beside_it_count(tmp_path):
    """A change of any makes polling load it again, whatever their names begin with."""
    touch(tmp_path, "m/a.onnx", "m/b.onnx", "m/genai_config.json", "m/tokenizer.json")
    (source,) = resolve([tmp_path / "m"])
    names = {Path(path).name for path, *_ in fingerprint_of(source)}
    assert names == {"a.onnx", "b.onnx", "genai_config.json", "tokenizer.json"}


def test_config_pbtxt_of_the_vllm_backend(tmp_path):
    """Is taken beside a genai_config.json only."""
    touch(tmp_path, "m/1/model.onnx", "m/1/genai_config.json")
    (tmp_path / "m" / "config.pbtxt").write_text('backend: "vllm"\nmodel_transaction_policy { decoupled: true }\n')
    (source,) = resolve([tmp_path])
    assert read_model_settings(Settings(), source).versions.latest == 1
    (tmp_path / "m" / "1" / "genai_config.json").unlink()
    with pytest.raises(ModelLoadError, match='backend "vllm": only ONNX models are served'):
        read_model_settings(Settings(), source)


@pytest.mark.parametrize("kind", ["language", "ordinary"])
def test_probe_opens_any_model(tmp_path, kind):
    """With its weights first; a language model is run too."""
    path = tmp_path / "model.onnx"
    if kind == "language":
        write_tiny_decoder(tmp_path, external_weights=True)
    else:
        onnx_models.save_with_external_data(path)
    told: list[object] = []
    open_as_served(
        path, Settings().for_model({}), lambda: told.append("opened"), lambda found: told.append(found.files)
    )
    weights = "model.onnx.data" if kind == "language" else "model.weights"
    assert told == [{weights: tmp_path / weights}, "opened"]

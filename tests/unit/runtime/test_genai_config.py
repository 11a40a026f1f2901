"""What lies beside a language model."""

import json
from pathlib import Path

import pytest

from inferd.runtime.errors import ModelLoadError
from inferd.runtime.genai_config import GenaiConfig, TensorNames, read_genai_config


def written(folder: Path, **files: object) -> Path:
    """Write ``files``, by their names without ".json", into ``folder``; return the path of the model."""
    for name, value in files.items():
        (folder / f"{name}.json").write_text(value if isinstance(value, str) else json.dumps(value))
    return folder / "model.onnx"


def test_reads_what_genai_writes(tmp_path):
    """Names, end tokens, context and the defaults of sampling."""
    inputs = {"input_ids": "ids", "past_key_names": "past.%d.k"}
    config = {
        "model": {
            "eos_token_id": [2, 7],
            "context_length": 4096,
            "decoder": {"inputs": inputs, "outputs": {"logits": "scores"}, "hidden_size": 64},
        },
        "search": {"do_sample": True, "temperature": 0.7, "top_k": 50, "top_p": 0.9, "repetition_penalty": 1.1},
    }
    found = read_genai_config(written(tmp_path, genai_config=config))
    assert found.names == TensorNames(input_ids="ids", past_key="past.%d.k", logits="scores")
    assert (found.end_token_ids, found.context_length) == ((2, 7), 4096)
    assert (found.temperature, found.top_k, found.top_p, found.repetition_penalty) == (0.7, 50, 0.9, 1.1)


@pytest.mark.parametrize("search", [{}, {"do_sample": False, "temperature": 0.7}])
def test_greedy_unless_it_is_to_be_sampled(search, tmp_path):
    """A temperature means nothing then."""
    found = read_genai_config(written(tmp_path, genai_config={"model": {"eos_token_id": 2}, "search": search}))
    assert (found.temperature, found.end_token_ids) == (0.0, (2,))


def test_top_p_of_zero_is_none(tmp_path):
    """Some write it for what is not set."""
    config = {"model": {}, "search": {"do_sample": True, "top_p": 0.0}}
    found = read_genai_config(written(tmp_path, genai_config=config))
    assert (found.temperature, found.top_p) == (None, None)


def test_reads_what_hugging_face_writes(tmp_path):
    """The end tokens of the generation come first; there are no names."""
    files = {
        "config": {"eos_token_id": 3, "max_position_embeddings": 2048},
        "generation_config": {"eos_token_id": [3, 4], "do_sample": True, "temperature": 0.6, "top_p": 0.95},
    }
    found = read_genai_config(written(tmp_path, **files))
    assert (found.end_token_ids, found.context_length) == ((3, 4), 2048)
    assert (found.temperature, found.top_p, found.names) == (0.6, 0.95, TensorNames())
    (tmp_path / "generation_config.json").unlink()
    assert read_genai_config(tmp_path / "model.onnx").end_token_ids == (3,)


def test_nothing_is_there(tmp_path):
    """Then nothing is known."""
    assert read_genai_config(tmp_path / "model.onnx") == GenaiConfig()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", r"genai_config\.json: expected JSON"),
        ("[]", r"genai_config\.json: the whole: Input should be .* got \[\]"),
        ("{}", r"genai_config\.json: model: Field required"),
        ('{"model": {"context_length": 0}}', r"model\.context_length: .*greater than or equal to 1, got 0"),
        ('{"model": {"eos_token_id": "x"}}', r"model\.eos_token_id\.0: .*integer.*got 'x'"),
        ('{"model": {}, "search": {"top_p": 2}}', r"search\.top_p: .*less than or equal to 1, got 2"),
    ],
)
def test_names_what_is_wrong(content, reason, tmp_path):
    """The file, the field, what was expected and what came."""
    with pytest.raises(ModelLoadError, match=reason):
        read_genai_config(written(tmp_path, genai_config=content))


def test_rejects_unreadable_file(tmp_path):
    """It is a directory, or not text."""
    path = tmp_path / "genai_config.json"
    path.mkdir()
    with pytest.raises(ModelLoadError, match=r"genai_config\.json: "):
        read_genai_config(tmp_path / "model.onnx")
    path.rmdir()
    path.write_bytes(b"\xff")
    with pytest.raises(ModelLoadError, match="expected UTF-8 text"):
        read_genai_config(tmp_path / "model.onnx")

"""From paths to model versions."""

import os
from pathlib import Path

import pytest

from inferd.models.repository import ModelSource, RepositoryError, resolve


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def found(*paths: Path) -> list[tuple[str, str, str]]:
    return [(source.name, source.version, source.path.name) for source in resolve(paths)]


def test_a_file(tmp_path):
    """Its name without the suffix, version 1."""
    assert found(touch(tmp_path, "digits.onnx") / "digits.onnx") == [("digits", "1", "digits.onnx")]


def test_a_directory_with_a_file(tmp_path):
    """The directory's name, with weights and settings beside the model."""
    folder = touch(tmp_path, "mlp/anything.onnx", "mlp/anything.weights", "mlp/model.yaml", "mlp/.hidden.onnx") / "mlp"
    assert resolve([folder]) == [
        ModelSource(name="mlp", version="1", path=folder / "anything.onnx", config=folder / "model.yaml")
    ]


@pytest.mark.parametrize(
    ("files", "path", "config"),
    [
        (["m/net.onnx", "m/model.yaml"], "m/net.onnx", "m/model.yaml"),
        (["m/3/model.onnx", "m/model.yaml"], "m/3/model.onnx", "m/model.yaml"),
        (["m/3/model.onnx", "m/model.yaml"], "m/3", "m/model.yaml"),
        (["m/3/model.onnx", "m/3/model.yaml", "m/model.yaml"], "m/3", "m/3/model.yaml"),
        (["m/n/model.onnx", "m/model.yaml"], "m/n/model.onnx", None),
        (["m/a.onnx", "m/b.onnx", "m/model.yaml"], "m/a.onnx", None),
        (["m/model.onnx", "m/old.onnx", "m/model.yaml"], "m/model.onnx", "m/model.yaml"),
        (["m/model.onnx", "m/old.onnx", "m/model.yaml"], "m/old.onnx", None),
    ],
)
def test_the_settings_of_a_file_are_those_of_its_model(files, path, config, tmp_path):
    """Beside it, or above the directory of its version; not those of another file of the directory."""
    (source,) = resolve([touch(tmp_path, *files) / path])
    assert source.config == (None if config is None else tmp_path / config)


def test_a_model_s_directory(tmp_path):
    """Its versions, by number."""
    folder = touch(tmp_path, "m/10/model.onnx", "m/9/model.onnx", "m/model.yaml", "m/notes/readme.txt") / "m"
    assert found(folder) == [("m", "9", "model.onnx"), ("m", "10", "model.onnx")]
    assert all(source.config == folder / "model.yaml" for source in resolve([folder]))


def test_a_repository(tmp_path):
    """All of its models, and nothing that is hidden or has none."""
    touch(tmp_path, "a/1/model.onnx", "b/2/net.onnx", "c/model.onnx", "..data/1/model.onnx", "d/.2/model.onnx", "e/x")
    assert found(tmp_path) == [("a", "1", "model.onnx"), ("b", "2", "net.onnx"), ("c", "1", "model.onnx")]


def test_several_paths_keep_their_order(tmp_path):
    """And the same path twice is one."""
    touch(tmp_path, "b.onnx", "a.onnx")
    paths = [tmp_path / "b.onnx", tmp_path / "a.onnx", tmp_path / "b.onnx"]
    assert [name for name, _, _ in found(*paths)] == ["b", "a"]


def test_the_working_directory_has_a_name(tmp_path, monkeypatch):
    """A dot is resolved."""
    monkeypatch.chdir(touch(tmp_path / "mlp", "model.onnx"))
    assert found(Path()) == [("mlp", "1", "model.onnx")]


def test_model_onnx_is_taken_among_several(tmp_path):
    """The name that the layout gives it."""
    assert found(touch(tmp_path, "m/1/model.onnx", "m/1/old.onnx")) == [("m", "1", "model.onnx")]


def test_leading_zeros_are_no_other_version(tmp_path):
    """Version 01 is version 1."""
    assert found(touch(tmp_path, "m/01/model.onnx")) == [("m", "1", "model.onnx")]
    with pytest.raises(RepositoryError, match='model "m" version "1" is there twice'):
        resolve([touch(tmp_path, "m/1/model.onnx")])


def test_a_version_without_a_model_is_passed_over(tmp_path, caplog):
    """With a warning: it may be half copied."""
    assert found(touch(tmp_path, "m/1/model.onnx", "m/2/model.onnx.part")) == [("m", "1", "model.onnx")]
    assert "m/2 holds no .onnx file and is passed over" in caplog.text


@pytest.mark.parametrize(
    ("names", "path", "message"),
    [
        ([], "nowhere", "nowhere: there is no such file or directory"),
        (["notes.txt"], "notes.txt", r"notes.txt: expected an \.onnx file or a directory"),
        (
            ["empty/notes.txt"],
            "empty",
            r"expected an \.onnx file, VERSION/model\.onnx or NAME/VERSION/model\.onnx in it",
        ),
        (["m/a.onnx", "m/b.onnx"], "m", r"m: expected one \.onnx file, found a\.onnx, b\.onnx"),
        (["m/a.onnx", "m/1/model.onnx"], "m", "found a.onnx beside 1"),
    ],
)
def test_what_is_not_understood_is_refused(names, path, message, tmp_path):
    """With the path, what was expected and what was found."""
    with pytest.raises(RepositoryError, match=message):
        resolve([touch(tmp_path, *names) / path])


def test_two_models_of_one_name_and_version_are_refused(tmp_path):
    """With both paths."""
    touch(tmp_path, "one/m.onnx", "two/m.onnx")
    with pytest.raises(RepositoryError, match=r'model "m" version "1" is there twice: .*one/m\.onnx and .*two/m\.onnx'):
        resolve([tmp_path / "one" / "m.onnx", tmp_path / "two" / "m.onnx"])


@pytest.mark.parametrize("name", ["m\udc80", "m\x1b[31m", "m\n", "m\u202e"])
def test_names_that_callers_cannot_write(tmp_path: Path, name: str) -> None:
    """They would be in answers, metrics and on terminals."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "model.onnx").touch()
    with pytest.raises(RepositoryError, match="with a name of characters that can be seen, in UTF-8"):
        resolve([tmp_path])


def test_settings_that_are_no_file_are_not_passed_over(tmp_path: Path) -> None:
    """Whoever loads the model says what is wrong with them."""
    (tmp_path / "model.onnx").touch()
    config = tmp_path / "model.yaml"
    for make in (lambda: os.mkfifo(config), config.mkdir, lambda: config.symlink_to("nowhere")):
        make()
        assert [source.config for source in resolve([tmp_path])] == [config]
        config.rename(tmp_path / f"old{len(list(tmp_path.iterdir()))}")

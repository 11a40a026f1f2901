"""Finding model versions in paths."""

import os
from pathlib import Path

import pytest

from inferd.models.model_directory import RepositoryError
from inferd.models.model_source import ModelSource
from inferd.models.repository import resolve
from tests.unit.models.model_files import found, touch


def test_file(tmp_path):
    """The name without the suffix, version 1."""
    assert found(touch(tmp_path, "digits.onnx") / "digits.onnx") == [("digits", "1", "digits.onnx")]


def test_directory_with_a_file(tmp_path):
    """The directory's name; weights and settings are beside the model."""
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
def test_settings_of_a_file(files, path, config, tmp_path):
    """In its directory or above a version directory; not those of another file in it."""
    (source,) = resolve([touch(tmp_path, *files) / path])
    assert source.config == (None if config is None else tmp_path / config)


def test_directory_of_a_model(tmp_path):
    """Its versions, ordered by number."""
    folder = touch(tmp_path, "m/10/model.onnx", "m/9/model.onnx", "m/model.yaml", "m/notes/readme.txt") / "m"
    assert found(folder) == [("m", "9", "model.onnx"), ("m", "10", "model.onnx")]
    assert all(source.config == folder / "model.yaml" for source in resolve([folder]))


def test_repository(tmp_path):
    """All models; hidden entries and directories without models are ignored."""
    touch(tmp_path, "a/1/model.onnx", "b/2/net.onnx", "c/model.onnx", "..data/1/model.onnx", "d/.2/model.onnx", "e/x")
    assert found(tmp_path) == [("a", "1", "model.onnx"), ("b", "2", "net.onnx"), ("c", "1", "model.onnx")]


def test_several_paths_keep_their_order(tmp_path):
    """A repeated path counts once."""
    touch(tmp_path, "b.onnx", "a.onnx")
    paths = [tmp_path / "b.onnx", tmp_path / "a.onnx", tmp_path / "b.onnx"]
    assert [name for name, _, _ in found(*paths)] == ["b", "a"]


def test_name_of_the_working_directory(tmp_path, monkeypatch):
    """The path ``.`` is made absolute."""
    monkeypatch.chdir(touch(tmp_path / "mlp", "model.onnx"))
    assert found(Path()) == [("mlp", "1", "model.onnx")]


def test_prefers_model_onnx(tmp_path):
    """Among several files."""
    assert found(touch(tmp_path, "m/1/model.onnx", "m/1/old.onnx")) == [("m", "1", "model.onnx")]


def test_leading_zeros_of_versions(tmp_path):
    """Version 01 is version 1."""
    assert found(touch(tmp_path, "m/01/model.onnx")) == [("m", "1", "model.onnx")]
    with pytest.raises(RepositoryError, match='model "m" version "1" exists twice'):
        resolve([touch(tmp_path, "m/1/model.onnx")])


def test_skips_versions_without_a_model(tmp_path, caplog):
    """With a warning: the copy may be incomplete."""
    assert found(touch(tmp_path, "m/1/model.onnx", "m/2/model.onnx.part")) == [("m", "1", "model.onnx")]
    assert f"skipped: {tmp_path}/m/2: expected an .onnx file in it, found none" in caplog.text


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
def test_rejects_other_layouts(names, path, message, tmp_path):
    """The error has the path, what was expected and what was found."""
    with pytest.raises(RepositoryError, match=message):
        resolve([touch(tmp_path, *names) / path])


def test_rejects_addresses():
    """Triton would take them."""
    with pytest.raises(RepositoryError, match=r"^s3://bucket/models: expected a local path: copy the models"):
        resolve([Path("s3://bucket/models")])
    with pytest.raises(RepositoryError, match=r"^gs://bucket: expected a local path"):
        resolve([Path("words=gs://bucket")])


def test_rejects_duplicate_models(tmp_path):
    """The error has both paths."""
    touch(tmp_path, "one/m.onnx", "two/m.onnx")
    with pytest.raises(RepositoryError, match=r'model "m" version "1" exists twice: .*one/m\.onnx and .*two/m\.onnx'):
        resolve([tmp_path / "one" / "m.onnx", tmp_path / "two" / "m.onnx"])


@pytest.mark.parametrize("name", ["m\udc80", "m\x1b[31m", "m\n", "m\u202e"])
def test_rejects_names_that_are_not_printable(tmp_path: Path, name: str) -> None:
    """They would appear in responses, metrics and terminals."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "model.onnx").touch()
    with pytest.raises(RepositoryError, match="expected a model name of printable characters in UTF-8"):
        resolve([tmp_path])


def test_settings_that_are_no_file(tmp_path: Path) -> None:
    """They are kept, so that loading the model fails."""
    (tmp_path / "model.onnx").touch()
    config = tmp_path / "model.yaml"
    for make in (lambda: os.mkfifo(config), config.mkdir, lambda: config.symlink_to("nowhere")):
        make()
        assert [source.config for source in resolve([tmp_path])] == [config]
        config.rename(tmp_path / f"old{len(list(tmp_path.iterdir()))}")


def test_named_triton_config(tmp_path):
    """configs/NAME.pbtxt takes the place of config.pbtxt in models that have it."""
    files = ("a/1/model.onnx", "a/config.pbtxt", "a/configs/h100.pbtxt", "b/1/model.onnx", "b/config.pbtxt")
    root = touch(tmp_path, *files)
    configs = {source.name: source.triton for source in resolve([root], config_name="h100")}
    assert configs == {"a": root / "a/configs/h100.pbtxt", "b": root / "b/config.pbtxt"}


def test_one_model_of_a_repository(tmp_path):
    """Other models are not looked at, unless that one is none."""
    folder = touch(tmp_path, "a/1/model.onnx", "b/1/model.onnx", "empty/readme.md")
    skipped = []
    assert [source.name for source in resolve([folder], skipped.append, only="b")] == ["b"]
    assert skipped == []
    assert [source.name for source in resolve([folder], only="none")] == ["a", "b"]
    assert [source.name for source in resolve([folder], only="empty")] == ["a", "b"]


def test_model_with_a_given_name_is_found_by_that(tmp_path):
    """The name of its folder says nothing."""
    folder = touch(tmp_path, "a/1/model.onnx") / "a"
    (source,) = resolve([Path(f"b={folder}")], only="b")
    assert source.name == "b"

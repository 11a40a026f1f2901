"""Linked models: names and neighbors are those of the given path, not of its target."""

from pathlib import Path

import pytest

from inferd.models.model_source import ModelSource
from inferd.models.repository import absolute_path, resolve
from tests.unit.models.model_files import found, touch


def cache_of_hugging_face(root: Path) -> Path:
    """Return ``snapshots/abc`` with a model, its weights and settings, each a link to a file named by its hash."""
    touch(root, "blobs/6fd5", "blobs/c0de", "blobs/beef", "snapshots/abc/config.json")
    snapshot = root / "snapshots" / "abc"
    for name, blob in {"model.onnx": "6fd5", "model.onnx_data": "c0de", "model.yaml": "beef"}.items():
        (snapshot / name).symlink_to(f"../../blobs/{blob}")
    return snapshot


def test_link_to_a_file_of_another_name(tmp_path):
    """The cache of Hugging Face's hub: suffix, name and settings are not those of the blob."""
    snapshot = cache_of_hugging_face(tmp_path)
    file = ModelSource(name="model", version="1", path=snapshot / "model.onnx", config=snapshot / "model.yaml")
    assert resolve([snapshot / "model.onnx"]) == [file]
    (source,) = resolve([snapshot])
    assert (source.name, source.path, source.config) == ("abc", file.path, file.config)


def test_settings_beside_a_link(tmp_path):
    """Settings beside the target belong to another model."""
    touch(tmp_path, "store/v7.onnx", "store/model.yaml", "ranker/readme.txt")
    link = tmp_path / "ranker" / "ranker.onnx"
    link.symlink_to("../store/v7.onnx")
    assert resolve([link]) == [ModelSource(name="ranker", version="1", path=link, config=None)]


def test_volumes_of_config_maps(tmp_path):
    """Kubernetes swaps ``..data``, the target of all other links."""
    touch(tmp_path, "..2026_11_29/model.onnx", "..2026_11_29/model.yaml")
    (tmp_path / "..data").symlink_to("..2026_11_29")
    for name in ("model.onnx", "model.yaml"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    (source,) = resolve([tmp_path])
    assert (source.name, source.path, source.config) == (
        tmp_path.name,
        tmp_path / "model.onnx",
        tmp_path / "model.yaml",
    )


def test_linked_directories(tmp_path):
    """Names are those of the links, not of their targets."""
    touch(tmp_path, "store/build-7/model.onnx", "store/model.yaml", "repository/m/model.yaml")
    (tmp_path / "repository" / "m" / "3").symlink_to("../../store/build-7")
    (tmp_path / "repository" / "n").symlink_to("m")
    sources = resolve([tmp_path / "repository"])
    assert [(source.name, source.version) for source in sources] == [("m", "3"), ("n", "3")]
    assert [source.config for source in sources] == [tmp_path / "repository" / name / "model.yaml" for name in "mn"]
    assert resolve([tmp_path / "repository" / "m" / "3" / "model.onnx"])[0].config == sources[0].config


def test_same_file_by_two_paths(tmp_path):
    """It counts once."""
    touch(tmp_path, "store/m.onnx")
    (tmp_path / "current").symlink_to("store")
    assert found(tmp_path / "store" / "m.onnx", tmp_path / "current" / "m.onnx") == [("m", "1", "m.onnx")]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("link", "link"),
        ("link/..", "store"),
        ("link/../a", "store/a"),
        ("./link/", "link"),
        ("a/../link", "link"),
        ("..", "."),
    ],
)
def test_resolves_paths_up_to_the_last_two_dots(given, expected, tmp_path, monkeypatch):
    """As the kernel does."""
    touch(tmp_path, "work/store/a/x", "work/a/x")
    work = tmp_path / "work"
    (work / "link").symlink_to("store/a")
    monkeypatch.chdir(work)
    assert absolute_path(Path(given)) == (tmp_path if given == ".." else work / expected)

"""What is in several repositories."""

import logging

import pytest

from inferd.config.settings import Settings
from inferd.models import catalog as catalog_module
from inferd.models.catalog import Catalog
from inferd.models.settings import read_model_settings
from tests import onnx_models


@pytest.fixture
def catalog(tmp_path):
    """Two repositories of a model, with version 1 in both."""
    for path in ("first/words/1", "second/words/1", "second/words/2"):
        onnx_models.save(onnx_models.linear(), tmp_path / path / "model.onnx")
    return Catalog(Settings(), [tmp_path / "first", tmp_path / "second"])


def test_version_that_is_in_two_repositories(catalog, tmp_path, caplog):
    """The first one is taken, and the other one named, once."""
    with caplog.at_level(logging.WARNING, "inferd.models"):
        versions = catalog.scan()["words"]
        catalog.scan()
    file = "words/1/model.onnx"
    assert {number: source.path for number, source in versions.items()} == {
        "1": tmp_path / "first" / file,
        "2": tmp_path / "second/words/2/model.onnx",
    }
    assert caplog.messages == [
        f'model "words" version "1" exists twice: {tmp_path}/first/{file} is taken, not {tmp_path}/second/{file}'
    ]


def test_links_to_one_file(tmp_path, caplog):
    """They are one version."""
    onnx_models.save(onnx_models.linear(), tmp_path / "first/words/1/model.onnx")
    (tmp_path / "second").symlink_to(tmp_path / "first")
    with caplog.at_level(logging.WARNING, "inferd.models"):
        assert set(Catalog(Settings(), [tmp_path / "first", tmp_path / "second"]).scan()["words"]) == {"1"}
    assert caplog.messages == []


def _count_reads(monkeypatch):
    """Return the list of the versions whose settings are read."""
    reads = []

    def read(settings, source, *, log):
        reads.append(source.version)
        return read_model_settings(settings, source, log=log)

    monkeypatch.setattr(catalog_module, "read_model_settings", read)
    return reads


def test_settings_of_versions(catalog, tmp_path):
    """Each has those of its own directory; what cannot be read is None."""
    (tmp_path / "first/words/model.yaml").write_text("batching: {max_batch_size: 3}\n")
    (tmp_path / "second/words/model.yaml").write_text("batching: 5\n")
    found = catalog.settings_of(catalog.scan()["words"])
    assert found["1"].batching.max_batch_size == 3
    assert found["2"] is None


def test_shared_settings_are_read_once(make, monkeypatch):
    """For all decisions of a load: which versions, their routes and sizes, whether on demand."""
    fixture = make("a/1/model.onnx", "a/2/model.onnx", "a/model.yaml", versions="all")
    fixture.start()
    reads = _count_reads(monkeypatch)
    assert fixture.load("a") is None
    assert fixture.loader.loads == ["a/2", "a/1"]
    assert reads == ["1"]


def test_settings_are_read_once_on_demand(make, monkeypatch):
    """When a request comes, as they may be others by then."""
    fixture = make("a/1/model.onnx", "a/2/model.onnx", "a/model.yaml", versions="all", on_demand=True, load=["*"])
    fixture.start()
    reads = _count_reads(monkeypatch)
    assert fixture.demand("a") is None
    assert len(reads) == 1

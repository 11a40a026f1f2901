"""What is in several repositories."""

import logging

import pytest

from inferd.config.settings import Settings
from inferd.models.catalog import Catalog
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

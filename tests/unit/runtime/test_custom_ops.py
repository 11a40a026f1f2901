"""Which libraries of custom operators are loaded, and what is told of those that are not."""

import os
import sys
from pathlib import Path

import onnxruntime
import pytest

from inferd.runtime.custom_ops import libraries, register
from inferd.runtime.errors import ModelLoadError


def test_paths_are_absolute(tmp_path, monkeypatch):
    """A bare name is one of the working directory, and not of a folder where the system keeps libraries."""
    monkeypatch.chdir(tmp_path)
    assert libraries(["ops.so", "lib/ops.so", "/opt/ops.so"]) == [
        tmp_path / "ops.so",
        tmp_path / "lib" / "ops.so",
        Path("/opt/ops.so"),
    ]


def test_each_is_loaded_once(tmp_path, monkeypatch):
    """However often it is named."""
    monkeypatch.chdir(tmp_path)
    assert libraries(["ops.so", str(tmp_path / "ops.so")]) == [tmp_path / "ops.so"]


def test_the_package_is_found():
    """By its name, wherever it is installed."""
    (library,) = libraries(["onnxruntime-extensions"])
    assert library.is_absolute()
    register([library], onnxruntime.SessionOptions())


def test_the_package_does_not_choose_how_processes_parse_messages():
    """It would have those that are started later use protobuf's implementation in Python."""
    sys.modules.pop("onnxruntime_extensions.cvt", None)
    sys.modules.pop("onnxruntime_extensions", None)
    libraries(["onnxruntime-extensions"])
    assert "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION" not in os.environ


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    """With the setting that asks for it."""
    monkeypatch.setitem(sys.modules, "onnxruntime_extensions", None)
    with pytest.raises(ModelLoadError, match=r"^runtime.custom_ops: .* onnxruntime-extensions is not installed"):
        libraries(["onnxruntime-extensions"])


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "cannot open shared object file: No such file or directory"), (b"nonsense", "file too short")],
)
def test_what_cannot_be_loaded_is_told_without_its_folder(content, told, tmp_path):
    """Callers may ask for the reason why a model failed."""
    library = tmp_path / "ops.so"
    if content is not None:
        library.write_bytes(content)
    with pytest.raises(ModelLoadError) as refused:
        register([library], onnxruntime.SessionOptions())
    assert str(refused.value).startswith("runtime.custom_ops: ops.so: ")
    assert str(refused.value).endswith(told)
    assert str(tmp_path) not in str(refused.value)

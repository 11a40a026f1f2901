"""Loading of custom operator libraries, and errors."""

import os
import sys
from pathlib import Path

import onnxruntime
import pytest

from inferd.runtime.errors import ModelLoadError
from inferd.runtime.providers import libraries, register


def test_paths_are_absolute(tmp_path, monkeypatch):
    """A bare name is relative to the working directory, not searched by the linker."""
    monkeypatch.chdir(tmp_path)
    assert libraries(["ops.so", "lib/ops.so", "/opt/ops.so"]) == [
        tmp_path / "ops.so",
        tmp_path / "lib" / "ops.so",
        Path("/opt/ops.so"),
    ]


def test_loads_each_library_once(tmp_path, monkeypatch):
    """However often it is listed."""
    monkeypatch.chdir(tmp_path)
    assert libraries(["ops.so", str(tmp_path / "ops.so")]) == [tmp_path / "ops.so"]


def test_finds_package():
    """By its name, wherever it is installed."""
    (library,) = libraries(["onnxruntime-extensions"])
    assert library.is_absolute()
    register([library], onnxruntime.SessionOptions())


def test_package_does_not_set_protobuf_implementation():
    """Child processes would use protobuf's slow Python implementation."""
    sys.modules.pop("onnxruntime_extensions.cvt", None)
    sys.modules.pop("onnxruntime_extensions", None)
    libraries(["onnxruntime-extensions"])
    assert "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION" not in os.environ


def test_names_missing_package(monkeypatch):
    """With the setting that requires it."""
    monkeypatch.setitem(sys.modules, "onnxruntime_extensions", None)
    with pytest.raises(ModelLoadError, match=r"^runtime.custom_ops: .* onnxruntime-extensions is not installed"):
        libraries(["onnxruntime-extensions"])


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot open shared object file: No such file or directory"), (b"nonsense", "file too short")],
)
def test_load_error_does_not_name_directory(content, message, tmp_path):
    """Clients can query why a model failed."""
    library = tmp_path / "ops.so"
    if content is not None:
        library.write_bytes(content)
    with pytest.raises(ModelLoadError) as refused:
        register([library], onnxruntime.SessionOptions())
    assert str(refused.value).startswith("runtime.custom_ops: ops.so: ")
    assert str(refused.value).endswith(message)
    assert str(tmp_path) not in str(refused.value)

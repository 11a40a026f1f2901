"""Malformed files, and other things in place of a file: the command fails and names the path."""

import os
import shutil
from pathlib import Path

import pytest

from inferd import demo

_LEVELS = [
    f"{name}: &{name} [{', '.join([f'*{above}'] * 9)}]" for above, name in zip("abcdefgh", "bcdefghi", strict=True)
]

CONTENTS = {
    "zero bytes": b"\0\0",
    "another encoding": "grün: 1".encode("latin-1"),
    "nested too deeply": b"[" * 3_000,
    "a bomb": "\n".join(["a: &a [x, x]", *_LEVELS]).encode(),
    "a circle": b"a: &a [*a]",
    "an object of Python": b"a: !!python/object/apply:os.system [id]",
    "a value that does not fit its tag": b"a: !!timestamp x",
    "a number without end": b"server: {grpc_port: 0x" + b"f" * 20_000 + b"}",
    "a list": b"- 1",
    "control characters": b'"\\e[31m\\u202e\\n": 1',
    "far too much": b"a: 1\n" * 1_000_000,
    "pickled": b"\x80\x04\x95",
}


def _put(path: Path, kind: str) -> None:
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a dangling link":
        path.symlink_to("nowhere")
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(CONTENTS[kind])


@pytest.fixture(params=[*CONTENTS, "a pipe", "a folder", "a dangling link", "a device"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def _is_reported(result, name: str) -> bool:
    return (
        result.exit_code in {1, 2}
        and result.err.startswith("inferd: ")
        and name in result.err
        and "\x1b" not in result.err
    )


def test_settings(inferd, tmp_path, kind):
    """The settings file of the server."""
    _put(tmp_path / "inferd.yaml", kind)
    assert _is_reported(inferd("config", "--config", tmp_path / "inferd.yaml"), "inferd.yaml")


@pytest.mark.parametrize("name", ["model.yaml", "examples.json", "examples.npz"])
def test_files_beside_a_model(inferd, tmp_path, kind, name):
    """Its settings, and its recorded requests."""
    shutil.copy(next(demo.repository().rglob("*.onnx")), tmp_path / "model.onnx")
    _put(tmp_path / name, kind)
    result = inferd("inspect", tmp_path)
    assert _is_reported(result, name), result


def test_model_file(inferd, tmp_path, kind):
    """The ONNX file itself."""
    _put(tmp_path / "model.onnx", kind)
    result = inferd("inspect", tmp_path / "model.onnx")
    # The argument parser rejects a dangling link itself.
    assert _is_reported(result, "model.onnx") or kind == "a dangling link"
    assert result.exit_code in {1, 2}


def test_tokens(inferd, tmp_path, kind):
    """The file to add a token to."""
    _put(tmp_path / "tokens.yaml", kind)
    result = inferd("token", "new", "alice", "--file", tmp_path / "tokens.yaml")
    # A missing file is created, also the target of a link.
    if kind != "a dangling link":
        assert result.exit_code == 1
        assert result.err.startswith("inferd: ")

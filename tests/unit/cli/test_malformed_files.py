"""Whatever a file holds, or is instead of a file: a command ends with lines that name it."""

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
    elif kind == "a lost link":
        path.symlink_to("nowhere")
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(CONTENTS[kind])


@pytest.fixture(params=[*CONTENTS, "a pipe", "a folder", "a lost link", "a device"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def _is_said(ended, name: str) -> bool:
    return (
        ended.exit_code in {1, 2} and ended.err.startswith("inferd: ") and name in ended.err and "\x1b" not in ended.err
    )


def test_settings(inferd, tmp_path, kind):
    """Of the server."""
    _put(tmp_path / "inferd.yaml", kind)
    assert _is_said(inferd("config", "--config", tmp_path / "inferd.yaml"), "inferd.yaml")


@pytest.mark.parametrize("name", ["model.yaml", "examples.json", "examples.npz"])
def test_what_stands_beside_a_model(inferd, tmp_path, kind, name):
    """Its settings, or recorded requests."""
    shutil.copy(next(demo.repository().rglob("*.onnx")), tmp_path / "model.onnx")
    _put(tmp_path / name, kind)
    ended = inferd("inspect", tmp_path)
    assert _is_said(ended, name), ended


def test_a_model(inferd, tmp_path, kind):
    """The file itself."""
    _put(tmp_path / "model.onnx", kind)
    ended = inferd("inspect", tmp_path / "model.onnx")
    # Links are followed by the parser of the command line, which looks whether there is anything.
    assert _is_said(ended, "model.onnx") or kind == "a lost link"
    assert ended.exit_code in {1, 2}


def test_tokens(inferd, tmp_path, kind):
    """To which one is to be added."""
    _put(tmp_path / "tokens.yaml", kind)
    ended = inferd("token", "new", "alice", "--file", tmp_path / "tokens.yaml")
    # One that is not there is made, at the end of a link too.
    if kind != "a lost link":
        assert ended.exit_code == 1
        assert ended.err.startswith("inferd: ")

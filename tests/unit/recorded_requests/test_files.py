"""Finding and reading files of recorded requests, also damaged ones."""

import os
import random
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from inferd.recorded_requests import FILE_NAMES, RecordedRequestsError, files, find, read
from tests.unit.recorded_requests.requests import MODEL, input_form


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected requests, got none"),
        (b" \n", "expected requests, got none"),
        (b"[]", "expected requests, got none"),
        (b"[1", "invalid JSON: Expecting ',' delimiter"),
        (b'{"X": "\xff"}', "invalid JSON: 'utf-8' codec can't decode"),
        (b"[" * 100_000, "invalid JSON: values are nested too deeply"),
        (b"[" * 900 + b"]" * 900, "request 0: expected an object with the inputs by name, got "),
        (b'{"X": ' + b"[" * 900 + b"]" * 900 + b"}", 'request 0: input "X": expected at most 64 dimensions, got'),
        (b'{"X": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}", 'request 0: input "X": expected FP32, got '),
        (b'{"X": [1, 2], "X": [3, 4]}', 'invalid JSON: duplicate key "X"'),
        (b'{"X": 1e999}', "invalid JSON: 1e999 is out of range of FP64"),
        (b"PK\x03\x04", "invalid JSON: "),
    ],
)
def test_rejects_damaged_json(tmp_path, content, message):
    """Any content raises our error, which begins with the file's name."""
    path = tmp_path / "examples.json"
    path.write_bytes(content)
    with pytest.raises(RecordedRequestsError) as caught:
        read(path, MODEL)
    assert str(caught.value).startswith(f"examples.json: {message}")


def test_rejects_other_archives(tmp_path):
    """Other files, entries that are no arrays or duplicates, and pickles, which are not loaded."""
    path, form = tmp_path / "examples.npz", input_form("FP32", "n")

    def message():
        with pytest.raises(RecordedRequestsError) as caught:
            read(path, [form])
        return str(caught.value).removeprefix("examples.npz: ")

    for content in (b"", b"nonsense", b"\x93NUMPY"):
        path.write_bytes(content)
        assert message().startswith("invalid archive of arrays: ")
    np.savez(path, allow_pickle=True, X=np.array([None, os.getcwd]))
    assert message() == 'entry "X.npy" cannot be read: Object arrays cannot be loaded when allow_pickle=False'
    for name, content, expected in [
        ("X.txt", b"", 'expected entries named .npy, got "X.txt"'),
        ("X.npy", b"", 'entry "X.npy" cannot be read: '),
    ]:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("folder/", b"")
            archive.writestr(name, content)
        assert message().startswith(expected)
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("X.npy", "Y.npy"):
            with archive.open(name, "w") as entry:
                np.lib.format.write_array(entry, np.ones(1))
    path.write_bytes(path.read_bytes().replace(b"Y.npy", b"X.npy"))
    assert message() == 'expected each entry once, got "X.npy" again'
    with zipfile.ZipFile(path, "w") as archive, archive.open("X.npy", "w") as entry:
        np.lib.format.write_array(entry, np.ones(1))
        entry.write(b"more")
    assert message() == 'expected one array in entry "X.npy", got trailing bytes'


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_archives(tmp_path, save):
    """Changed or missing bytes give a request or our error."""
    path = tmp_path / "examples.npz"
    save(path, X=np.array([[1, 2.5], [3, 4]], np.float32), words=np.array(["a", "zoë"]))
    whole, dice, texts = path.read_bytes(), random.Random(1), []
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(dice.randint(1, 3)):
            content[dice.randrange(len(content))] = dice.randrange(256)
        path.write_bytes(content[: dice.choice([len(content), dice.randrange(len(content))])])
        try:
            read(path, MODEL)
        except RecordedRequestsError as error:
            texts.append(str(error))
    assert len(texts) > 200
    assert [text for text in texts if not text.startswith("examples.npz: ")] == []


def test_unreadable_files(tmp_path):
    """The error names the file without its directory."""
    for name, message in [
        ("examples.json", "cannot be read: No such file or directory"),
        ("examples.npz", "cannot be read: No such file or directory"),
        ("examples.txt", "expected a file named .json or .npz"),
    ]:
        with pytest.raises(RecordedRequestsError) as caught:
            read(tmp_path / name, MODEL)
        assert str(caught.value) == f"{name}: {message}"
    (tmp_path / "examples.json").mkdir()
    with pytest.raises(RecordedRequestsError, match=r"^examples\.json: cannot be read: Is a directory$"):
        read(tmp_path / "examples.json", MODEL)


def test_files_that_are_too_large(tmp_path, monkeypatch):
    """Compressed or not; and a pipe, which may be endless."""
    monkeypatch.setattr(files, "_MAX_BYTES", 500)
    packed, pipe = tmp_path / "examples.npz", tmp_path / "pipe.npz"
    np.savez_compressed(packed, x=np.zeros((100, 2), np.float32))
    assert packed.stat().st_size < 500
    os.mkfifo(pipe)
    (tmp_path / "examples.json").write_text(" " * 501)
    for path, text in [
        (packed, "expected arrays of at most 500 bytes, got 928"),
        (tmp_path / "examples.json", "cannot be read: expected at most 500 bytes, got more"),
        (pipe, "cannot be read: not a file but a pipe"),
    ]:
        with pytest.raises(RecordedRequestsError) as caught:
            read(path, MODEL)
        assert str(caught.value) == f"{path.name}: {text}"


def test_finds_the_file_beside_a_model(tmp_path):
    """None, or one of either kind, also a dangling link, but not both."""
    assert find(tmp_path) is None
    assert find(tmp_path / "nowhere") is None
    for name in FILE_NAMES:
        (tmp_path / name).symlink_to("nowhere")
        assert find(tmp_path) == tmp_path / name
        (tmp_path / name).unlink()
    for name in FILE_NAMES:
        (tmp_path / name).touch()
    with pytest.raises(RecordedRequestsError, match=r"^expected either examples\.npz or examples\.json, got both$"):
        find(tmp_path)


def test_imports_little():
    """Neither ONNX Runtime nor gRPC nor pydantic."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, inferd.recorded_requests; print({'onnxruntime', 'grpc', 'pydantic'} & set(sys.modules))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "set()\n"

"""External weight files, which may be links."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from inferd.config.settings import ModelSettings
from inferd.runtime import opening
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.external_weights import find_weights
from inferd.runtime.session import OnnxSession, open_session
from tests import onnx_models


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A directory with ``model.onnx`` and ``model.weights``."""
    return onnx_models.save_with_external_data(tmp_path_factory.mktemp("made") / "model.onnx").parent


def answers(session: OnnxSession) -> bool:
    (y,) = session.run({"x": np.ones((1, 64), np.float32)}, ["y"])
    return bool(y[0].tolist() == list(range(64)))


def link(at: Path, to: Path) -> None:
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(os.path.relpath(to, at.parent))


def copy(made: Path, name: str, to: Path) -> Path:
    to.parent.mkdir(parents=True, exist_ok=True)
    return shutil.copy(made / name, to)


def hugging_face(made, root):
    """Both are links to files of one directory."""
    for name, blob in {"model.onnx": "6fd5", "model.weights": "c0de"}.items():
        link(root / "snapshots" / "abc" / name, copy(made, name, root / "blobs" / blob))
    return root / "snapshots" / "abc" / "model.onnx"


def config_map(made, root):
    """Kubernetes' ``..data``."""
    for name in ("model.onnx", "model.weights"):
        copy(made, name, root / "..2026" / name)
        link(root / name, root / "..data" / name)
    link(root / "..data", root / "..2026")
    return root / "model.onnx"


def git_annex(made, root):
    """Each file has a directory of its own, called by its hash."""
    for name, key in {"model.onnx": "SHA256-6fd5", "model.weights": "SHA256-c0de"}.items():
        link(root / "m" / name, copy(made, name, root / ".git" / "annex" / "objects" / key / key))
    return root / "m" / "model.onnx"


def large_disk(made, root):
    """Only the weights are elsewhere."""
    link(root / "m" / "model.weights", copy(made, "model.weights", root / "disk" / "w"))
    return copy(made, "model.onnx", root / "m" / "model.onnx")


def one_link(made, root):
    """A link to the model, but not to the weights beside it."""
    copy(made, "model.weights", root / "store" / "model.weights")
    link(root / "m" / "1" / "model.onnx", copy(made, "model.onnx", root / "store" / "model.onnx"))
    return root / "m" / "1" / "model.onnx"


def linked_version(made, root):
    """The directory is a link."""
    for name in ("model.onnx", "model.weights"):
        copy(made, name, root / "store" / name)
    link(root / "m" / "1", root / "store")
    return root / "m" / "1" / "model.onnx"


@pytest.mark.parametrize(
    ("lay_out", "in_memory"),
    [
        (hugging_face, False),
        (config_map, False),
        (linked_version, False),
        (git_annex, True),
        (large_disk, True),
        (one_link, True),
    ],
)
def test_finds_weights_behind_links(lay_out, in_memory, made, tmp_path):
    """Files that ONNX Runtime rejects are passed in memory, and none stays mapped."""
    path = lay_out(made, tmp_path)
    weights = find_weights(path, {"model.weights"})
    assert weights.in_memory is in_memory
    session = open_session(path, ModelSettings())
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    weights.files["model.weights"].write_bytes(b"")
    assert answers(session)


def test_immutable_weights_stay_mapped(made, tmp_path):
    """Their pages are the file's; two sessions share them."""
    path = hugging_face(made, tmp_path)
    sessions = [open_session(path, ModelSettings(), is_immutable=True) for _ in range(2)]
    maps = Path("/proc/self/maps").read_text().splitlines()
    assert len([line for line in maps if line.endswith("/blobs/c0de")]) == len(sessions)
    assert all(map(answers, sessions))


def test_warns_of_large_weights_that_are_copied(made, tmp_path, monkeypatch, caplog):
    """With their size; not of those that stay mapped."""
    monkeypatch.setattr(opening, "_LARGE_BYTES", 1)
    path = hugging_face(made, tmp_path)
    open_session(path, ModelSettings(), is_immutable=True)
    assert "external weights" not in caplog.text
    open_session(path, ModelSettings())
    assert "model.onnx has 0 MiB of external weights that were copied into memory" in caplog.text


def test_detaches_weights_of_subgraphs(tmp_path):
    """ONNX Runtime does not report those of subgraphs."""
    np.arange(2, dtype=np.float32).tofile(tmp_path / "weights")
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value="weights")
    result = helper.make_tensor_value_info("r", TensorProto.FLOAT, [2])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    wanted = helper.make_tensor_value_info("wanted", TensorProto.BOOL, [])
    branches = {
        "then_branch": helper.make_graph([helper.make_node("Add", ["x", "w"], ["r"])], "then", [], [result], [weights]),
        "else_branch": helper.make_graph([helper.make_node("Identity", ["x"], ["r"])], "else", [], [result]),
    }
    choice = helper.make_node("If", ["wanted"], ["y"], **branches)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    graph = helper.make_graph([choice], "choice", [x, wanted], [y])
    opsets = [helper.make_opsetid("", 20)]
    path = onnx_models.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "model.onnx")
    session = open_session(path, ModelSettings())
    (tmp_path / "weights").write_bytes(bytes(8))
    (found,) = session.run({"x": np.ones(2, np.float32), "wanted": np.array(True)}, ["y"])
    assert found.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("put", "reason"),
    [
        (lambda path: None, "there is no such file or directory"),
        (lambda path: path.symlink_to("nowhere"), "a link that leads nowhere"),
        (lambda path: path.symlink_to(path.name), os.strerror(errno.ELOOP)),
        (os.mkfifo, "not a file but a pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "not a file but a device"),
        (Path.mkdir, os.strerror(errno.EISDIR)),
    ],
)
def test_names_unreadable_weights(put, reason, made, tmp_path):
    """Without their directory."""
    path = copy(made, "model.onnx", tmp_path / "model.onnx")
    put(tmp_path / "model.weights")
    with pytest.raises(ModelLoadError) as refused:
        open_session(path, ModelSettings())
    assert str(refused.value) == f"model.onnx has its weights in model.weights: {reason}"


@pytest.mark.parametrize("name", ["../w", "a/../../w", "/etc/passwd", "..", "", "a\0b"])
def test_rejects_paths_outside_model_directory(name, tmp_path):
    """A link is the operator's choice, a path in the model is not."""
    with pytest.raises(ModelLoadError, match=r"model\.onnx has its weights in"):
        find_weights(tmp_path / "model.onnx", {name})


def test_rejects_truncated_weights(made, tmp_path):
    """Mapped and in memory."""
    for lay_out in (hugging_face, git_annex):
        path = lay_out(made, tmp_path / lay_out.__name__)
        os.truncate(find_weights(path, {"model.weights"}).files["model.weights"], 10)
        with pytest.raises(ModelLoadError, match=r"cannot load model\.onnx: .*file_length: 10"):
            open_session(path, ModelSettings())


def failing(code: int):
    def detach(_: Path) -> int:
        raise OSError(code, os.strerror(code))

    return detach


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
def test_serves_mapped_weights_if_detach_is_not_permitted(code, made, monkeypatch, caplog):
    """With a warning."""
    monkeypatch.setattr(opening, "detach", failing(code))
    assert answers(open_session(made / "model.onnx", ModelSettings()))
    assert "model.weights stays mapped into memory, so it must not be changed" in caplog.text


@pytest.mark.parametrize("code", [errno.EFAULT, errno.ENOMEM])
def test_rejects_weights_that_cannot_be_detached(code, made, monkeypatch):
    """Truncated meanwhile, or out of memory."""
    monkeypatch.setattr(opening, "detach", failing(code))
    with pytest.raises(ModelLoadError, match=r"cannot keep what is in model\.weights"):
        open_session(made / "model.onnx", ModelSettings())

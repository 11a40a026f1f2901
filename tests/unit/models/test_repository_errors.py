"""Unreadable and unsuitable entries do not hide other models."""

import errno
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from inferd.models.model_directory import RepositoryError
from inferd.models.repository import resolve
from tests.patience import PATIENCE_S
from tests.unit.models.model_files import touch


class Failing:
    """Makes listing or accessing paths fail, by name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._listing: dict[str, int] = {}
        self._access: dict[str, int] = {}
        for name, codes in {"iterdir": self._listing, "stat": self._access, "lstat": self._access}.items():
            self._fail(monkeypatch, name, codes)

    def list(self, name: str, code: int) -> None:
        self._listing[name] = code

    def access(self, name: str, code: int) -> None:
        self._access[name] = code

    @staticmethod
    def _fail(monkeypatch: pytest.MonkeyPatch, method: str, codes: dict[str, int]) -> None:
        real = getattr(Path, method)

        def call(path: Path, **options):
            if code := codes.get(path.name):
                raise OSError(code, os.strerror(code), str(path))
            return real(path, **options)

        monkeypatch.setattr(Path, method, call)


@pytest.fixture
def failing(monkeypatch):
    return Failing(monkeypatch)


def search(*paths: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the models and the warnings."""
    warnings: list[str] = []
    return [(source.name, source.version) for source in resolve(paths, warnings.append)], warnings


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOENT])
def test_skips_unreadable_directories(code, tmp_path, failing):
    """At every level, with the path and the reason."""
    touch(tmp_path, "lost+found/x", "m/1/model.onnx", "m/2/model.onnx", "n/model.onnx")
    for name in ("lost+found", "2"):
        failing.list(name, code)
    why = "there is no such file or directory" if code == errno.ENOENT else os.strerror(code)
    assert search(tmp_path) == (
        [("m", "1"), ("n", "1")],
        [f"skipped: {tmp_path}/lost+found: {why}", f"skipped: {tmp_path}/m/2: {why}"],
    )


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ELOOP])
def test_skips_inaccessible_entries(code, tmp_path, failing):
    """Except a model's file, which fails when it is loaded."""
    touch(tmp_path, "odd/x", "m/1/model.onnx", "m/2/model.onnx", "n/model.onnx")
    for name in ("odd", "2", "model.onnx"):
        failing.access(name, code)
    assert search(tmp_path) == (
        [("m", "1"), ("n", "1")],
        [f"skipped: {tmp_path}/{name}: {os.strerror(code)}" for name in ("odd", "m/2")],
    )


def test_dangling_and_circular_links(tmp_path):
    """Directories are skipped, model files count."""
    touch(tmp_path, "m/1/model.onnx", "m/2/old.onnx")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "m" / "2" / "model.onnx").symlink_to("gone.onnx")
    assert search(tmp_path) == (
        [("m", "1"), ("m", "2")],
        [
            f"skipped: {tmp_path}/circle: {os.strerror(errno.ELOOP)}",
            f"skipped: {tmp_path}/gone: a link that leads nowhere",
        ],
    )


@pytest.mark.parametrize("name", ["m\udc80", "m\x1b[31m"])
def test_skips_invalid_models_beside_others(name, tmp_path):
    """The reason is escaped for the terminal."""
    touch(tmp_path, f"{name}/model.onnx", "n/model.onnx", "two/a.onnx", "two/b.onnx", "v/1/a.onnx", "v/1/b.onnx")
    models, warnings = search(tmp_path)
    assert models == [("n", "1")]
    assert [warning.isprintable() for warning in warnings] == [True] * 3
    assert "expected a model name of printable characters" in warnings[0]
    assert "two: expected one .onnx file, found a.onnx, b.onnx" in warnings[1]
    assert "v/1: expected one .onnx file, found a.onnx, b.onnx" in warnings[2]


def test_rejects_unreadable_given_paths(tmp_path, failing):
    """Below them, nothing could be served."""
    touch(tmp_path, "models/m/model.onnx", "other/m/model.onnx")
    failing.list("models", errno.EACCES)
    failing.access("other", errno.EIO)
    for name, code in {"models": errno.EACCES, "other": errno.EIO}.items():
        with pytest.raises(RepositoryError, match=f"{name}: {os.strerror(code)}"):
            resolve([tmp_path / name])


def test_errors_list_skipped_entries(tmp_path, failing):
    """They may be the reason that nothing was found."""
    touch(tmp_path, "m/model.onnx")
    failing.list("m", errno.EACCES)
    with pytest.raises(RepositoryError, match=rf"found none; {tmp_path}/m: {os.strerror(errno.EACCES)}"):
        resolve([tmp_path], lambda _: None)


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (os.mkfifo, "a pipe"),
        (bind, "a socket"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
        (lambda path: path.symlink_to("nowhere.onnx"), "a link that leads nowhere"),
    ],
)
def test_rejects_given_paths_that_are_no_file(make, what, tmp_path, monkeypatch):
    """Without opening them, and naming the kind."""
    monkeypatch.chdir(tmp_path)
    make(Path("model.onnx"))
    with pytest.raises(RepositoryError, match=rf"model\.onnx: .*{what}$"):
        resolve([tmp_path / "model.onnx"])


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_inaccessible_settings_are_kept(code, tmp_path, failing):
    """So that loading the model fails, rather than serving it with other settings."""
    touch(tmp_path, "model.onnx", "model.yaml")
    failing.access("model.yaml", code)
    assert resolve([tmp_path / "model.onnx"])[0].config == tmp_path / "model.yaml"
    failing.list(tmp_path.name, code)
    assert resolve([tmp_path / "model.onnx"])[0].config == tmp_path / "model.yaml"


#: Root may read everything, and another user may not be able to run this Python.
_AS_NOBODY = """
import os, pathlib, sys
from inferd.models.repository import resolve
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65532)
    os.setuid(65532)
print(resolve([pathlib.Path(sys.argv[1])]))
"""


def test_lost_and_found():
    """It belongs to root, and the server in an image runs as another user."""
    volume = Path(tempfile.mkdtemp(prefix="inferd-volume-"))
    try:
        touch(volume, "m/1/model.onnx")
        (volume / "lost+found").mkdir(mode=0o700)
        volume.chmod(0o755)
        if os.getuid() != 0:
            (volume / "lost+found").chmod(0)
        done = subprocess.run(
            [sys.executable, "-c", _AS_NOBODY, volume], capture_output=True, text=True, timeout=PATIENCE_S, check=True
        )
    finally:
        shutil.rmtree(volume)
    assert "name='m', version='1'" in done.stdout
    assert done.stderr == f"skipped: {volume}/lost+found: Permission denied\n"

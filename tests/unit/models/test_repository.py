"""Finding model versions in paths."""

import errno
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from inferd.models.repository import ModelSource, RepositoryError, absolute_path, resolve
from tests.patience import PATIENCE_S


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def found(*paths: Path) -> list[tuple[str, str, str]]:
    return [(source.name, source.version, source.path.name) for source in resolve(paths)]


def test_file(tmp_path):
    """The name without the suffix, version 1."""
    assert found(touch(tmp_path, "digits.onnx") / "digits.onnx") == [("digits", "1", "digits.onnx")]


def test_directory_with_a_file(tmp_path):
    """The directory's name; weights and settings are beside the model."""
    folder = touch(tmp_path, "mlp/anything.onnx", "mlp/anything.weights", "mlp/model.yaml", "mlp/.hidden.onnx") / "mlp"
    assert resolve([folder]) == [
        ModelSource(name="mlp", version="1", path=folder / "anything.onnx", config=folder / "model.yaml")
    ]


@pytest.mark.parametrize(
    ("files", "path", "config"),
    [
        (["m/net.onnx", "m/model.yaml"], "m/net.onnx", "m/model.yaml"),
        (["m/3/model.onnx", "m/model.yaml"], "m/3/model.onnx", "m/model.yaml"),
        (["m/3/model.onnx", "m/model.yaml"], "m/3", "m/model.yaml"),
        (["m/3/model.onnx", "m/3/model.yaml", "m/model.yaml"], "m/3", "m/3/model.yaml"),
        (["m/n/model.onnx", "m/model.yaml"], "m/n/model.onnx", None),
        (["m/a.onnx", "m/b.onnx", "m/model.yaml"], "m/a.onnx", None),
        (["m/model.onnx", "m/old.onnx", "m/model.yaml"], "m/model.onnx", "m/model.yaml"),
        (["m/model.onnx", "m/old.onnx", "m/model.yaml"], "m/old.onnx", None),
    ],
)
def test_settings_of_a_file(files, path, config, tmp_path):
    """In its directory or above a version directory; not those of another file in it."""
    (source,) = resolve([touch(tmp_path, *files) / path])
    assert source.config == (None if config is None else tmp_path / config)


def test_directory_of_a_model(tmp_path):
    """Its versions, ordered by number."""
    folder = touch(tmp_path, "m/10/model.onnx", "m/9/model.onnx", "m/model.yaml", "m/notes/readme.txt") / "m"
    assert found(folder) == [("m", "9", "model.onnx"), ("m", "10", "model.onnx")]
    assert all(source.config == folder / "model.yaml" for source in resolve([folder]))


def test_repository(tmp_path):
    """All models; hidden entries and directories without models are ignored."""
    touch(tmp_path, "a/1/model.onnx", "b/2/net.onnx", "c/model.onnx", "..data/1/model.onnx", "d/.2/model.onnx", "e/x")
    assert found(tmp_path) == [("a", "1", "model.onnx"), ("b", "2", "net.onnx"), ("c", "1", "model.onnx")]


def test_several_paths_keep_their_order(tmp_path):
    """A repeated path counts once."""
    touch(tmp_path, "b.onnx", "a.onnx")
    paths = [tmp_path / "b.onnx", tmp_path / "a.onnx", tmp_path / "b.onnx"]
    assert [name for name, _, _ in found(*paths)] == ["b", "a"]


def test_name_of_the_working_directory(tmp_path, monkeypatch):
    """The path ``.`` is made absolute."""
    monkeypatch.chdir(touch(tmp_path / "mlp", "model.onnx"))
    assert found(Path()) == [("mlp", "1", "model.onnx")]


def test_prefers_model_onnx(tmp_path):
    """Among several files."""
    assert found(touch(tmp_path, "m/1/model.onnx", "m/1/old.onnx")) == [("m", "1", "model.onnx")]


def test_leading_zeros_of_versions(tmp_path):
    """Version 01 is version 1."""
    assert found(touch(tmp_path, "m/01/model.onnx")) == [("m", "1", "model.onnx")]
    with pytest.raises(RepositoryError, match='model "m" version "1" exists twice'):
        resolve([touch(tmp_path, "m/1/model.onnx")])


def test_skips_versions_without_a_model(tmp_path, caplog):
    """With a warning: the copy may be incomplete."""
    assert found(touch(tmp_path, "m/1/model.onnx", "m/2/model.onnx.part")) == [("m", "1", "model.onnx")]
    assert f"skipped: {tmp_path}/m/2: expected an .onnx file in it, found none" in caplog.text


@pytest.mark.parametrize(
    ("names", "path", "message"),
    [
        ([], "nowhere", "nowhere: there is no such file or directory"),
        (["notes.txt"], "notes.txt", r"notes.txt: expected an \.onnx file or a directory"),
        (
            ["empty/notes.txt"],
            "empty",
            r"expected an \.onnx file, VERSION/model\.onnx or NAME/VERSION/model\.onnx in it",
        ),
        (["m/a.onnx", "m/b.onnx"], "m", r"m: expected one \.onnx file, found a\.onnx, b\.onnx"),
        (["m/a.onnx", "m/1/model.onnx"], "m", "found a.onnx beside 1"),
    ],
)
def test_rejects_other_layouts(names, path, message, tmp_path):
    """The error has the path, what was expected and what was found."""
    with pytest.raises(RepositoryError, match=message):
        resolve([touch(tmp_path, *names) / path])


def test_rejects_duplicate_models(tmp_path):
    """The error has both paths."""
    touch(tmp_path, "one/m.onnx", "two/m.onnx")
    with pytest.raises(RepositoryError, match=r'model "m" version "1" exists twice: .*one/m\.onnx and .*two/m\.onnx'):
        resolve([tmp_path / "one" / "m.onnx", tmp_path / "two" / "m.onnx"])


@pytest.mark.parametrize("name", ["m\udc80", "m\x1b[31m", "m\n", "m\u202e"])
def test_rejects_names_that_are_not_printable(tmp_path: Path, name: str) -> None:
    """They would appear in responses, metrics and terminals."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "model.onnx").touch()
    with pytest.raises(RepositoryError, match="expected a model name of printable characters in UTF-8"):
        resolve([tmp_path])


def test_settings_that_are_no_file(tmp_path: Path) -> None:
    """They are kept, so that loading the model fails."""
    (tmp_path / "model.onnx").touch()
    config = tmp_path / "model.yaml"
    for make in (lambda: os.mkfifo(config), config.mkdir, lambda: config.symlink_to("nowhere")):
        make()
        assert [source.config for source in resolve([tmp_path])] == [config]
        config.rename(tmp_path / f"old{len(list(tmp_path.iterdir()))}")


# Links: names and neighbors are those of the given path.


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


# Unreadable entries do not hide others.


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

"""From paths to model versions."""

import errno
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from inferd.models.repository import ModelSource, RepositoryError, as_given, resolve
from tests.patience import PATIENCE_S


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def found(*paths: Path) -> list[tuple[str, str, str]]:
    return [(source.name, source.version, source.path.name) for source in resolve(paths)]


def test_a_file(tmp_path):
    """Its name without the suffix, version 1."""
    assert found(touch(tmp_path, "digits.onnx") / "digits.onnx") == [("digits", "1", "digits.onnx")]


def test_a_directory_with_a_file(tmp_path):
    """The directory's name, with weights and settings beside the model."""
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
def test_the_settings_of_a_file_are_those_of_its_model(files, path, config, tmp_path):
    """Beside it, or above the directory of its version; not those of another file of the directory."""
    (source,) = resolve([touch(tmp_path, *files) / path])
    assert source.config == (None if config is None else tmp_path / config)


def test_a_model_s_directory(tmp_path):
    """Its versions, by number."""
    folder = touch(tmp_path, "m/10/model.onnx", "m/9/model.onnx", "m/model.yaml", "m/notes/readme.txt") / "m"
    assert found(folder) == [("m", "9", "model.onnx"), ("m", "10", "model.onnx")]
    assert all(source.config == folder / "model.yaml" for source in resolve([folder]))


def test_a_repository(tmp_path):
    """All of its models, and nothing that is hidden or has none."""
    touch(tmp_path, "a/1/model.onnx", "b/2/net.onnx", "c/model.onnx", "..data/1/model.onnx", "d/.2/model.onnx", "e/x")
    assert found(tmp_path) == [("a", "1", "model.onnx"), ("b", "2", "net.onnx"), ("c", "1", "model.onnx")]


def test_several_paths_keep_their_order(tmp_path):
    """And the same path twice is one."""
    touch(tmp_path, "b.onnx", "a.onnx")
    paths = [tmp_path / "b.onnx", tmp_path / "a.onnx", tmp_path / "b.onnx"]
    assert [name for name, _, _ in found(*paths)] == ["b", "a"]


def test_the_working_directory_has_a_name(tmp_path, monkeypatch):
    """A dot is resolved."""
    monkeypatch.chdir(touch(tmp_path / "mlp", "model.onnx"))
    assert found(Path()) == [("mlp", "1", "model.onnx")]


def test_model_onnx_is_taken_among_several(tmp_path):
    """The name that the layout gives it."""
    assert found(touch(tmp_path, "m/1/model.onnx", "m/1/old.onnx")) == [("m", "1", "model.onnx")]


def test_leading_zeros_are_no_other_version(tmp_path):
    """Version 01 is version 1."""
    assert found(touch(tmp_path, "m/01/model.onnx")) == [("m", "1", "model.onnx")]
    with pytest.raises(RepositoryError, match='model "m" version "1" is there twice'):
        resolve([touch(tmp_path, "m/1/model.onnx")])


def test_a_version_without_a_model_is_passed_over(tmp_path, caplog):
    """With a warning: it may be half copied."""
    assert found(touch(tmp_path, "m/1/model.onnx", "m/2/model.onnx.part")) == [("m", "1", "model.onnx")]
    assert f"passed over: {tmp_path}/m/2: expected an .onnx file in it, found none" in caplog.text


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
def test_what_is_not_understood_is_refused(names, path, message, tmp_path):
    """With the path, what was expected and what was found."""
    with pytest.raises(RepositoryError, match=message):
        resolve([touch(tmp_path, *names) / path])


def test_two_models_of_one_name_and_version_are_refused(tmp_path):
    """With both paths."""
    touch(tmp_path, "one/m.onnx", "two/m.onnx")
    with pytest.raises(RepositoryError, match=r'model "m" version "1" is there twice: .*one/m\.onnx and .*two/m\.onnx'):
        resolve([tmp_path / "one" / "m.onnx", tmp_path / "two" / "m.onnx"])


@pytest.mark.parametrize("name", ["m\udc80", "m\x1b[31m", "m\n", "m\u202e"])
def test_names_that_callers_cannot_write(tmp_path: Path, name: str) -> None:
    """They would be in answers, metrics and on terminals."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "model.onnx").touch()
    with pytest.raises(RepositoryError, match="with a name of characters that can be seen, in UTF-8"):
        resolve([tmp_path])


def test_settings_that_are_no_file_are_not_passed_over(tmp_path: Path) -> None:
    """Whoever loads the model says what is wrong with them."""
    (tmp_path / "model.onnx").touch()
    config = tmp_path / "model.yaml"
    for make in (lambda: os.mkfifo(config), config.mkdir, lambda: config.symlink_to("nowhere")):
        make()
        assert [source.config for source in resolve([tmp_path])] == [config]
        config.rename(tmp_path / f"old{len(list(tmp_path.iterdir()))}")


# Links: names and neighbours are those of the path that was given.


def cache_of_hugging_face(root: Path) -> Path:
    """Return ``snapshots/abc`` with a model, its weights and settings, each a link to a file called by its hash."""
    touch(root, "blobs/6fd5", "blobs/c0de", "blobs/beef", "snapshots/abc/config.json")
    snapshot = root / "snapshots" / "abc"
    for name, blob in {"model.onnx": "6fd5", "model.onnx_data": "c0de", "model.yaml": "beef"}.items():
        (snapshot / name).symlink_to(f"../../blobs/{blob}")
    return snapshot


def test_a_link_to_a_file_of_another_name(tmp_path):
    """The cache of Hugging Face's hub: suffix, name and settings are not those of the blob."""
    snapshot = cache_of_hugging_face(tmp_path)
    file = ModelSource(name="model", version="1", path=snapshot / "model.onnx", config=snapshot / "model.yaml")
    assert resolve([snapshot / "model.onnx"]) == [file]
    (source,) = resolve([snapshot])
    assert (source.name, source.path, source.config) == ("abc", file.path, file.config)


def test_the_directory_of_a_link_is_its_own(tmp_path):
    """Settings beside what it leads to are those of another model."""
    touch(tmp_path, "store/v7.onnx", "store/model.yaml", "ranker/readme.txt")
    link = tmp_path / "ranker" / "ranker.onnx"
    link.symlink_to("../store/v7.onnx")
    assert resolve([link]) == [ModelSource(name="ranker", version="1", path=link, config=None)]


def test_volumes_of_config_maps(tmp_path):
    """Kubernetes swaps ``..data``, to which all else in the directory links."""
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


def test_versions_and_models_that_are_links(tmp_path):
    """Their names count, not those of the directories that they lead to."""
    touch(tmp_path, "store/build-7/model.onnx", "store/model.yaml", "repository/m/model.yaml")
    (tmp_path / "repository" / "m" / "3").symlink_to("../../store/build-7")
    (tmp_path / "repository" / "n").symlink_to("m")
    sources = resolve([tmp_path / "repository"])
    assert [(source.name, source.version) for source in sources] == [("m", "3"), ("n", "3")]
    assert [source.config for source in sources] == [tmp_path / "repository" / name / "model.yaml" for name in "mn"]
    assert resolve([tmp_path / "repository" / "m" / "3" / "model.onnx"])[0].config == sources[0].config


def test_the_same_file_on_two_ways_is_one(tmp_path):
    """A model may be given by its name and by a link."""
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
def test_paths_are_resolved_only_as_far_as_they_have_no_name(given, expected, tmp_path, monkeypatch):
    """Two dots lead to where the kernel says."""
    touch(tmp_path, "work/store/a/x", "work/a/x")
    work = tmp_path / "work"
    (work / "link").symlink_to("store/a")
    monkeypatch.chdir(work)
    assert as_given(Path(given)) == (tmp_path if given == ".." else work / expected)


# What cannot be read hides nothing else.


class Failing:
    """Makes the operating system refuse to list or look at paths, by their names."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._listed: dict[str, int] = {}
        self._looked_at: dict[str, int] = {}
        for name, codes in {"iterdir": self._listed, "stat": self._looked_at, "lstat": self._looked_at}.items():
            self._fail(monkeypatch, name, codes)

    def list(self, name: str, code: int) -> None:
        self._listed[name] = code

    def look_at(self, name: str, code: int) -> None:
        self._looked_at[name] = code

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
    """Return what is found, and the warnings."""
    warnings: list[str] = []
    return [(source.name, source.version) for source in resolve(paths, warnings.append)], warnings


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOENT])
def test_directories_that_cannot_be_listed_are_passed_over(code, tmp_path, failing):
    """At every level, each with its path and the reason."""
    touch(tmp_path, "lost+found/x", "m/1/model.onnx", "m/2/model.onnx", "n/model.onnx")
    for name in ("lost+found", "2"):
        failing.list(name, code)
    why = "there is no such file or directory" if code == errno.ENOENT else os.strerror(code)
    assert search(tmp_path) == (
        [("m", "1"), ("n", "1")],
        [f"passed over: {tmp_path}/lost+found: {why}", f"passed over: {tmp_path}/m/2: {why}"],
    )


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ELOOP])
def test_entries_that_cannot_be_looked_at_are_passed_over(code, tmp_path, failing):
    """A model's file is not: whoever loads it says what is wrong, and the model is known to have failed."""
    touch(tmp_path, "odd/x", "m/1/model.onnx", "m/2/model.onnx", "n/model.onnx")
    for name in ("odd", "2", "model.onnx"):
        failing.look_at(name, code)
    assert search(tmp_path) == (
        [("m", "1"), ("n", "1")],
        [f"passed over: {tmp_path}/{name}: {os.strerror(code)}" for name in ("odd", "m/2")],
    )


def test_links_that_lead_nowhere_and_in_circles(tmp_path):
    """The same with real ones: directories are passed over, files count."""
    touch(tmp_path, "m/1/model.onnx", "m/2/old.onnx")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "m" / "2" / "model.onnx").symlink_to("gone.onnx")
    assert search(tmp_path) == (
        [("m", "1"), ("m", "2")],
        [
            f"passed over: {tmp_path}/circle: {os.strerror(errno.ELOOP)}",
            f"passed over: {tmp_path}/gone: a link that leads nowhere",
        ],
    )


@pytest.mark.parametrize("name", ["m\udc80", "m\x1b[31m"])
def test_models_that_are_not_understood_are_passed_over_beside_others(name, tmp_path):
    """With the reason, in which nothing paints the terminal."""
    touch(tmp_path, f"{name}/model.onnx", "n/model.onnx", "two/a.onnx", "two/b.onnx", "v/1/a.onnx", "v/1/b.onnx")
    models, warnings = search(tmp_path)
    assert models == [("n", "1")]
    assert [warning.isprintable() for warning in warnings] == [True] * 3
    assert "with a name of characters that can be seen" in warnings[0]
    assert "two: expected one .onnx file, found a.onnx, b.onnx" in warnings[1]
    assert "v/1: expected one .onnx file, found a.onnx, b.onnx" in warnings[2]


def test_a_path_that_was_given_and_cannot_be_read_is_an_error(tmp_path, failing):
    """Nothing would be served of it."""
    touch(tmp_path, "models/m/model.onnx", "other/m/model.onnx")
    failing.list("models", errno.EACCES)
    failing.look_at("other", errno.EIO)
    for name, code in {"models": errno.EACCES, "other": errno.EIO}.items():
        with pytest.raises(RepositoryError, match=f"{name}: {os.strerror(code)}"):
            resolve([tmp_path / name])


def test_an_error_says_what_was_passed_over(tmp_path, failing):
    """It may be why nothing was found."""
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
def test_what_is_no_file_is_refused_if_it_was_given(make, what, tmp_path, monkeypatch):
    """Without opening it, and without a word too many."""
    monkeypatch.chdir(tmp_path)
    make(Path("model.onnx"))
    with pytest.raises(RepositoryError, match=rf"model\.onnx: .*{what}$"):
        resolve([tmp_path / "model.onnx"])


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_settings_that_cannot_be_looked_at_are_not_ignored(code, tmp_path, failing):
    """Whoever loads the model says so, rather than serve it with other settings."""
    touch(tmp_path, "model.onnx", "model.yaml")
    failing.look_at("model.yaml", code)
    assert resolve([tmp_path / "model.onnx"])[0].config == tmp_path / "model.yaml"
    failing.list(tmp_path.name, code)
    assert resolve([tmp_path / "model.onnx"])[0].config == tmp_path / "model.yaml"


#: Whoever runs the tests may be allowed everything, and nobody else may use their Python.
_AS_NOBODY = """
import os, pathlib, sys
from inferd.models.repository import resolve
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65532)
    os.setuid(65532)
print(resolve([pathlib.Path(sys.argv[1])]))
"""


def test_lost_and_found_of_a_volume():
    """It is root's alone, and the server of an image is somebody else."""
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
    assert done.stderr == f"passed over: {volume}/lost+found: Permission denied\n"

"""Models in remote storage: what is found, what is fetched, and when."""

import errno
import shutil
import threading
from pathlib import Path

import pytest

from inferd.config.remote import RemoteSettings
from inferd.config.settings import Settings
from inferd.models.catalog import Catalog
from inferd.models.fingerprint import load_fingerprint
from inferd.models.model_directory import RepositoryError
from inferd.models.model_source import ModelSource, model_file
from inferd.models.poller import Poller
from inferd.models.remote import RemoteRepositories
from inferd.models.repository import resolve
from inferd.remote.storage import RemoteFile, StorageError
from inferd.runtime.errors import ModelLoadError
from tests import onnx_models
from tests.fakes import FakeClock
from tests.patience import PATIENCE_S, eventually
from tests.unit.remote.storages import FakeStorage

_ADDRESS = "s3://bucket/models"
_MODEL = onnx_models.linear().SerializeToString()


class _Remote:
    """Repositories with one storage."""

    def __init__(self, folder: Path, storage: FakeStorage, *, config_name: str = "", **settings: object) -> None:
        settings = RemoteSettings(cache=folder / "cache", **settings)
        self.repositories = RemoteRepositories(settings, config_name, lambda _: storage)
        self.repositories.start()
        self.warnings: list[str] = []

    def sources(self, address: str = _ADDRESS) -> dict[tuple[str, str], ModelSource]:
        """Return what is there."""
        found = self.repositories.sources(address, self.warnings.append)
        return {(source.name, source.version): source for source in found}


@pytest.fixture
def storage() -> FakeStorage:
    """Two models."""
    return FakeStorage(
        {
            "words/model.yaml": b"batching: {max_batch_size: 8}\n",
            "words/labels.txt": b"yes\nno\n",
            "words/1/model.onnx": _MODEL,
            "words/2/model.onnx": _MODEL + b"\0" * 0,
            "digits/model.onnx": _MODEL,
        }
    )


def _fetch(source: ModelSource) -> object:
    assert source.remote is not None
    return source.remote.fetch(source.path, lambda: False)


def test_finds_models_and_reads_settings_only(tmp_path: Path, storage: FakeStorage) -> None:
    """Large files are not needed for it."""
    found = _Remote(tmp_path, storage).sources()
    assert set(found) == {("words", "1"), ("words", "2"), ("digits", "1")}
    assert found["words", "1"].config.read_bytes() == storage.contents["words/model.yaml"]
    assert storage.read_names() == {"words/model.yaml"}
    assert all(source.is_immutable for source in found.values())


def test_load_fetches_needed_files(tmp_path: Path, storage: FakeStorage) -> None:
    """The model and the small files around it, not other versions, not large files that nothing names."""
    storage.contents["words/1/notes.bin"] = bytes(16 * 2**20 + 1)
    storage.contents["words/warmup/white"] = bytes(16 * 2**20 + 1)
    source = _Remote(tmp_path, storage).sources()["words", "1"]
    _files = _fetch(source)
    assert source.path.read_bytes() == _MODEL
    assert (source.path.parents[1] / "labels.txt").read_bytes() == b"yes\nno\n"
    expected = {"words/1/model.onnx", "words/labels.txt", "words/model.yaml", "words/warmup/white"}
    assert storage.read_names() == expected


def test_load_fetches_all_of_a_language_model(tmp_path: Path, storage: FakeStorage) -> None:
    """Its configuration, which names the file among several, with the address; and its tokenizer, whatever its size."""
    config = b'{"model": {"decoder": {"filename": "decoder.onnx"}}}'
    storage.contents |= {
        "lm/decoder.onnx": _MODEL,
        "lm/embedding.onnx": _MODEL,
        "lm/genai_config.json": config,
        "lm/tokenizer.json": bytes(16 * 2**20 + 1),
    }
    source = _Remote(tmp_path, storage).sources()["lm", "1"]
    assert "lm/genai_config.json" in storage.read_names()
    assert source.remote is not None
    path = model_file(source)
    _files = source.remote.fetch(path, lambda: False)
    assert path.read_bytes() == _MODEL
    assert {"lm/decoder.onnx", "lm/tokenizer.json"} <= storage.read_names()
    assert "lm/embedding.onnx" not in storage.read_names()


def test_small_files_are_fetched_at_once(tmp_path: Path, storage: FakeStorage) -> None:
    """Whether they are settings of several models, or beside one; each takes two round trips."""
    storage.contents["digits/model.yaml"] = b"{}"
    storage.contents["words/vocabulary.txt"] = b"a\nb\n"
    both = threading.Barrier(2)

    def meet(file: RemoteFile, _: int) -> None:
        if file.name.endswith((".yaml", ".txt")):
            both.wait(PATIENCE_S)

    storage.before_read = meet
    _files = _fetch(_Remote(tmp_path, storage).sources()["words", "1"])
    assert {"words/labels.txt", "words/vocabulary.txt"} <= storage.read_names()


def test_settings_that_are_too_large(tmp_path: Path, storage: FakeStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Are not read, and neither are files in the place of other settings."""
    monkeypatch.setattr("inferd.models.remote.MAX_BYTES", 100)
    storage.contents["words/model.yaml"] = bytes(101)
    storage.contents["digits/configs/large.pbtxt"] = bytes(101)
    remote = _Remote(tmp_path, storage, config_name="small")
    assert set(remote.sources()) == {("digits", "1")}
    assert storage.reads == []
    assert remote.warnings == [f"skipped: {_ADDRESS}/words/model.yaml: expected at most 100 bytes, found 101"]


def test_tells_address_of_what_is_wrong(tmp_path: Path, storage: FakeStorage) -> None:
    """Operators do not know the paths in the cache."""
    storage.contents["words/2/other.onnx"] = storage.contents.pop("words/2/model.onnx")
    storage.contents["words/2/another.onnx"] = _MODEL
    storage.contents["both/model.onnx"] = storage.contents["both/1/model.onnx"] = _MODEL
    del storage.contents["words/model.yaml"]
    remote = _Remote(tmp_path, storage)
    assert set(remote.sources()) == {("words", "1"), ("digits", "1")}
    assert sorted(remote.warnings) == [
        f"skipped: {_ADDRESS}/both: expected an .onnx file or version directories, found model.onnx beside 1",
        f"skipped: {_ADDRESS}/words/2: expected one .onnx file, found another.onnx, other.onnx",
    ]


def test_names_of_models_that_have_changed_leave(tmp_path: Path, storage: FakeStorage) -> None:
    """A server that runs for months does not fill its cache with them."""
    remote = _Remote(tmp_path, storage)
    for content in range(4):
        storage.contents["digits/model.onnx"] = bytes([content])
        remote.sources()
    # Those of what has just been replaced leave with the next change.
    assert len(list((tmp_path / "cache" / "trees").iterdir())) <= 3


def test_cache_that_is_emptied(tmp_path: Path, storage: FakeStorage) -> None:
    """Files are downloaded again, while the server runs."""
    remote = _Remote(tmp_path, storage)
    _before = _fetch(remote.sources()["digits", "1"])
    shutil.rmtree(tmp_path / "cache")
    source = remote.sources()["digits", "1"]
    _after = _fetch(source)
    assert source.path.read_bytes() == _MODEL


def test_weights_that_a_model_names(tmp_path: Path) -> None:
    """Are fetched, whatever their size; other models beside it are not."""
    onnx_models.save_with_external_data(tmp_path / "model.onnx")
    files = {path.name: path.read_bytes() for path in tmp_path.glob("model.*")}
    storage = FakeStorage({**files, "other.onnx": _MODEL})
    source = _Remote(tmp_path, storage).sources()["models", "1"]
    _files = _fetch(source)
    assert storage.read_names() == set(files)
    assert (source.path.parent / "model.weights").resolve().parent == source.path.resolve().parent


@pytest.mark.parametrize(
    ("names", "only", "expected"),
    [
        (["model.onnx"], "", ("models", "1")),
        (["3/model.onnx", "config.pbtxt"], "", ("models", "3")),
        (["onnx/model.onnx", "onnx/model_fp16.onnx", "README.md", "images/a.png"], "", ("onnx", "1")),
        (["words.onnx", "digits.onnx"], "words.onnx", ("words", "1")),
    ],
)
def test_layouts(tmp_path: Path, names: list[str], only: str, expected: tuple[str, str]) -> None:
    """A model, a version directory, the layout of Hugging Face, one file."""
    remote = _Remote(tmp_path, FakeStorage(dict.fromkeys(names, b""), only=only))
    assert set(remote.sources()) == {expected}
    assert remote.warnings == []


def test_another_name(tmp_path: Path, storage: FakeStorage) -> None:
    """For one model."""
    remote = _Remote(tmp_path, storage)
    with pytest.raises(RepositoryError, match="mine=s3://bucket/models: expected one model, found digits, words"):
        remote.sources(f"mine={_ADDRESS}")
    del storage.contents["digits/model.onnx"]
    assert set(remote.sources(f"mine={_ADDRESS}")) == {("mine", "1"), ("mine", "2")}


def test_changes_fingerprint_of_changed_version_only(tmp_path: Path, storage: FakeStorage) -> None:
    """A new version does not touch the others, whose files have other paths then."""
    remote = _Remote(tmp_path, storage)
    before = remote.sources()
    storage.contents["words/3/model.onnx"] = _MODEL
    storage.contents["words/2/model.onnx"] = _MODEL + b"changed"
    after = remote.sources()
    same = {key for key in before if load_fingerprint(before[key]) == load_fingerprint(after[key])}
    assert same == {("words", "1"), ("digits", "1")}
    assert before["digits", "1"] == after["digits", "1"]
    assert before["words", "2"].path != after["words", "2"].path


def test_settings_are_part_of_each_version(tmp_path: Path, storage: FakeStorage) -> None:
    """As in a directory."""
    remote = _Remote(tmp_path, storage)
    before = remote.sources()
    storage.contents["words/model.yaml"] = b"batching: {max_batch_size: 4}\n"
    after = remote.sources()
    assert load_fingerprint(before["words", "1"]) != load_fingerprint(after["words", "1"])
    assert after["words", "1"].config.read_bytes() == storage.contents["words/model.yaml"]


def test_failing_listing_keeps_last_one(tmp_path: Path, storage: FakeStorage, caplog: pytest.LogCaptureFixture) -> None:
    """Of this process, or of an earlier one; said once."""
    first = _Remote(tmp_path, storage)
    before = first.sources()
    _files = _fetch(before["digits", "1"])
    storage.is_down = True
    assert first.sources() == before
    assert first.sources() == before
    second = _Remote(tmp_path, storage)
    found = second.sources()
    assert set(found) == set(before)
    again = _fetch(found["digits", "1"])
    assert found["digits", "1"].path.read_bytes() == _MODEL
    assert again is not None
    assert caplog.text.count("s3://bucket/models: ConnectionError; what it had before counts") == 2
    assert second.repositories.read().listings == {(_ADDRESS, "failed"): 1}


def test_storage_that_was_never_listed(tmp_path: Path, storage: FakeStorage) -> None:
    """There is nothing to go by."""
    storage.is_down = True
    with pytest.raises(RepositoryError, match="s3://bucket/models: ConnectionError"):
        _Remote(tmp_path, storage).sources()


def test_storage_that_hangs_delays_once(tmp_path: Path, storage: FakeStorage) -> None:
    """Later looks take what was listed before, until the listing has ended."""
    remote = _Remote(tmp_path, storage, timeout_s=0.01)
    storage.listing_may_end.clear()
    for _ in range(3):
        with pytest.raises(RepositoryError, match=r"s3://bucket/models: not listed within 0.01 s \(remote.timeout_s\)"):
            remote.sources()
    assert storage.listings == 1
    storage.listing_may_end.set()
    eventually(lambda: _listed(remote), "the listing has ended")


def test_failing_download_fails_load(tmp_path: Path, storage: FakeStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the load, with the address."""
    monkeypatch.setattr("inferd.remote.download._TRIES", 1)
    source = _Remote(tmp_path, storage).sources()["digits", "1"]
    storage.is_down = True
    with pytest.raises(ModelLoadError, match="s3://bucket/models: ConnectionError"):
        _fetch(source)


def test_keeps_model_with_unreadable_settings(
    tmp_path: Path, storage: FakeStorage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It stays as it was, said once; the others are found."""
    monkeypatch.setattr("inferd.remote.download._TRIES", 1)
    remote = _Remote(tmp_path, storage)
    before = remote.sources()
    storage.contents["words/model.yaml"] = b"batching: {}\n"
    storage.contents["new/model.onnx"] = _MODEL
    storage.before_read = _raising
    after = remote.sources()
    assert remote.sources() == after
    assert set(after) == {*before, ("new", "1")}
    assert after["words", "1"] == before["words", "1"]
    assert remote.warnings == ["skipped: s3://bucket/models: reset"] * 2
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "s3://bucket/models: reset"
    ]


def test_version_that_is_there_twice(tmp_path: Path, storage: FakeStorage, caplog: pytest.LogCaptureFixture) -> None:
    """The error has the address, not the path in the cache."""
    onnx_models.save(onnx_models.linear(), tmp_path / "digits" / "model.onnx")
    paths = [tmp_path / "digits", _ADDRESS]
    remote = _Remote(tmp_path, storage).repositories.sources
    with pytest.raises(RepositoryError, match=rf"exists twice: .*/digits/model.onnx and {_ADDRESS}/digits/model.onnx"):
        resolve(paths, remote=remote)
    Catalog(Settings(), paths, remote).scan()
    assert caplog.text.count(f"digits/model.onnx is taken, not {_ADDRESS}/digits/model.onnx") == 1


def test_keeps_models_while_disk_is_full(tmp_path: Path, storage: FakeStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that has changed stays as it was; none is gone, as polling would unload it."""
    remote = _Remote(tmp_path, storage)
    before = remote.sources()
    storage.contents["words/1/model.onnx"] += b"changed"

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "symlink_to", fail)
    assert remote.sources() == before
    assert remote.warnings == [f"skipped: {_ADDRESS}: words cannot be kept: [Errno 28] No space left on device"]
    monkeypatch.undo()
    assert remote.sources()["words", "1"].path != before["words", "1"].path


def test_catalog_searches_paths_and_addresses(tmp_path: Path, storage: FakeStorage) -> None:
    """Both are searched."""
    onnx_models.save(onnx_models.linear(), tmp_path / "local" / "model.onnx")
    remote = _Remote(tmp_path, storage).repositories.sources
    catalog = Catalog(Settings(), [tmp_path / "local", _ADDRESS], remote)
    assert set(catalog.scan()) == {"local", "words", "digits"}
    assert catalog.missing_paths() == []


def test_polling(tmp_path: Path, storage: FakeStorage) -> None:
    """What is old is complete at once; versions that are gone in two looks are gone."""
    remote = _Remote(tmp_path, storage).repositories.sources
    catalog, clock = Catalog(Settings(), [_ADDRESS], remote), FakeClock()
    poller = Poller(catalog, interval_s=10.0, clock=clock, wall_clock=lambda: 1020.0)
    assert set(poller.complete_at_start(catalog.scan())) == {"words", "digits"}
    del storage.contents["digits/model.onnx"]
    storage.contents["words/2/model.onnx"] += b"changed"
    looks = []
    for _ in range(3):
        clock.advance(10.0)
        looks.append({name: set(versions) for name, versions in poller.poll().items()})
    assert looks == [{}, {"digits": set(), "words": {"1", "2"}}, {}]


@pytest.mark.parametrize("is_down", [True, False], ids=["storage is down", "wrong content"])
def test_polling_loads_again_after_failed_download(
    tmp_path: Path, storage: FakeStorage, monkeypatch: pytest.MonkeyPatch, is_down: bool
) -> None:
    """Storage comes back; other content of the same file does not, and reading it again would cost as much."""
    monkeypatch.setattr("inferd.remote.download._TRIES", 1)
    checksums = {} if is_down else {f"{_ADDRESS}/words/1/model.onnx": "0" * 64}
    remote = _Remote(tmp_path, storage, checksums=checksums).repositories.sources
    catalog, clock = Catalog(Settings(), [_ADDRESS], remote), FakeClock()
    poller = Poller(catalog, interval_s=10.0, clock=clock, wall_clock=lambda: 1020.0)
    source = poller.complete_at_start(catalog.scan())["words"]["1"]
    storage.is_down = is_down
    with pytest.raises(ModelLoadError):
        _fetch(source)
    looks = []
    for _ in range(3):
        clock.advance(10.0)
        looks.append(set(poller.poll()))
    assert looks == ([set(), {"words"}, set()] if is_down else [set(), set(), set()])


def _listed(remote: _Remote) -> bool:
    try:
        return ("digits", "1") in remote.sources()
    except RepositoryError:
        return False


def _raising(*_: object) -> None:
    raise StorageError("s3://bucket/models: reset")

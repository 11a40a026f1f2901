"""What a job relies on in the folder that it writes to: on this machine, and by S3's protocol."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from inferd.batch.errors import BatchError, InUseError, UsageError
from inferd.batch.manifest import manifest_of
from inferd.batch.output_folder import LocalFolder, OutputFolder
from inferd.batch.remote_folder import RemoteFolder
from inferd.batch.storage import FileInfo, file_system, list_files, open_input
from tests.parts_job import PARTS, content, run_parts
from tests.s3 import S3Server, s3_bucket

#: A part of an upload to S3 has at least 5 MiB, so this is more than one.
_LARGE = 12 << 20


@pytest.fixture(scope="module", name="s3")
def _s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_bucket(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> OutputFolder:
    """Return an empty folder that is not there yet."""
    if request.param == "local":
        return LocalFolder(str(tmp_path / "out"))
    request.getfixturevalue("s3")
    return RemoteFolder(f"s3://bucket/{tmp_path.name}", sleep=lambda _: None)


def test_files_are_there_as_a_whole(folder: OutputFolder) -> None:
    """While they are written they are not there; then they replace what was."""
    with folder.create("a/part.bin") as file:
        for _ in range(_LARGE >> 20):
            assert file.write(bytes(1 << 20)) == 1 << 20
        assert file.tell() == _LARGE
        assert folder.size("a/part.bin") is None
        assert folder.sizes("a") == {}
    assert folder.sizes("a") == {"a/part.bin": _LARGE}
    with folder.create("a/part.bin") as file:
        file.write(b"new")
        assert folder.size("a/part.bin") == _LARGE
    with folder.open("a/part.bin") as file:
        assert file.read() == b"new"


@pytest.mark.usefixtures("s3")
def test_bucket_is_missing() -> None:
    """It is said, of the output and of inputs; nothing says that another run would continue."""
    folder = RemoteFolder("s3://nowhere/out")
    text = r"^s3://nowhere/out: there is no such bucket; make it, or name another OUTPUT$"
    for use in (folder.lock("lock"), folder.create("part")):
        with pytest.raises(UsageError, match=text), use:
            pass
    with pytest.raises(UsageError, match=r"^s3://nowhere/rows.csv: there is no such file, directory or bucket$"):
        list_files("s3://nowhere/rows.csv")


def test_failed_file_leaves_nothing(folder: OutputFolder) -> None:
    """The one before stays, and nothing is beside it."""
    with folder.create("part") as file:
        file.write(b"old")
    stack = ExitStack()
    stack.enter_context(folder.create("part")).write(bytes(_LARGE))
    stack.callback({}.__getitem__, "nothing")
    with pytest.raises(KeyError):
        stack.close()
    assert folder.read("part") == b"old"
    assert folder.sizes() == {"part": 3}
    if isinstance(folder, LocalFolder):
        assert [path.name for path in Path(folder.address).iterdir()] == ["part"]


def test_first_one_writes(folder: OutputFolder) -> None:
    """The second one learns that another content is there."""
    assert folder.create_new("manifest", b"first")
    assert folder.create_new("manifest", b"first")
    assert not folder.create_new("manifest", b"second")
    assert folder.read("manifest") == b"first"
    assert folder.sizes() == {"manifest": 5}


def test_missing_files(folder: OutputFolder) -> None:
    """Has no content and no size, and can be deleted; only reading it is an error."""
    assert folder.read("a") is None
    assert folder.size("a") is None
    assert folder.sizes("a") == {}
    folder.delete(["a", "b/c"])
    folder.clean("b")
    with pytest.raises(BatchError, match="/a: "):
        folder.open("a")


def test_sizes_are_of_one_folder(folder: OutputFolder) -> None:
    """Not of those below it; names are with those of the folder."""
    for name in ("b", "a", "inner/c", "inner/deep/d"):
        with folder.create(name) as file:
            file.write(name.encode())
    assert folder.sizes() == {"a": 1, "b": 1}
    assert folder.sizes("inner") == {"inner/c": 7}
    folder.delete(["a", "inner/c", "missing"])
    assert (folder.sizes(), folder.sizes("inner")) == ({"b": 1}, {})


def test_one_process_has_a_lock(folder: OutputFolder) -> None:
    """Others, by the same folder or another one, do not get it until it ends."""
    with folder.lock("lock"):
        assert folder.held(["other"]) == []
        if isinstance(folder, LocalFolder):
            assert folder.held(["lock", "other"]) == ["lock"]
            with pytest.raises(InUseError, match="out is in use"), LocalFolder(folder.address).lock("lock"):
                pass
    with folder.lock("lock"):
        pass
    assert folder.sizes() == {}


def test_job_in_the_folder(folder: OutputFolder, tmp_path: Path) -> None:
    """Stopped, it goes on; complete, it stays as it is."""
    output = folder.address
    run_parts(manifest_of(output, ".jsonl", is_file=False), parts=1)
    assert folder.sizes() == {"part-00000.jsonl": len(content("a", 0))}
    run_parts(manifest_of(output, ".jsonl", is_file=False))
    names = {f"part-0000{part}.jsonl": len(content("a", part)) for part in range(PARTS)}
    assert folder.sizes() == names
    run_parts(manifest_of(output, ".jsonl", is_file=False))
    assert folder.sizes() == names
    assert sorted(folder.sizes("_inferd")) == ["_inferd/errors.jsonl", "_inferd/manifest.json", "_inferd/summary.json"]


def _uploads() -> set[str]:
    system, _ = file_system("s3://bucket")
    found: dict[str, Any] = system.call_s3("list_multipart_uploads", Bucket="bucket")
    return {each["Key"] for each in found.get("Uploads", ())}


def test_uploads_of_killed_processes_are_given_up(s3: S3Server) -> None:
    """Those of the same part, which is written again; others may be of processes that run."""
    system, _ = file_system("s3://bucket")
    for key in ("killed/part-00001.parquet", "killed/part-00002.parquet", "killed/_inferd/parts/00001.json"):
        system.call_s3("create_multipart_upload", Bucket="bucket", Key=key)
    folder = RemoteFolder("s3://bucket/killed")
    folder.clean("", {"part-00001"})
    assert _uploads() == {"killed/_inferd/parts/00001.json", "killed/part-00002.parquet"}
    folder.clean("")
    folder.clean("_inferd/parts")
    assert _uploads() == set()


def test_storage_that_is_gone(tmp_path: Path) -> None:
    """The error names the object and what to do, and no secret."""
    with s3_bucket(tmp_path) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        upload = ExitStack()
        upload.enter_context(RemoteFolder("s3://bucket/out").create("part")).write(b"x")
        server.kill()
        with pytest.raises(BatchError) as raised:
            upload.close()
    text = str(raised.value)
    assert re.match(r"s3://bucket/out/part: .*; run it again when that is fixed: it continues$", text)
    assert "very-secret" not in text


def test_remote_files_are_listed_and_read(s3: S3Server) -> None:
    """A file, a folder and a glob, each file once, with what changes when it is written again."""
    for name in ("rows/a.csv", "rows/b/c.csv", "rows/_inferd/d.csv", "rows/b/.e.csv"):
        s3.put(f"bucket/{name}", name.encode())

    def names(pattern: str) -> list[str]:
        return [each.address.removeprefix("s3://bucket/rows/") for each in list_files(f"s3://bucket/rows/{pattern}")]

    assert names("") == ["a.csv", "b/c.csv"]
    assert names("a.csv") == ["a.csv"]
    assert names("**") == ["a.csv", "b/c.csv"]
    assert names("*/*.csv") == ["b/c.csv"]
    assert names("_inferd/*") == ["_inferd/d.csv"]
    [before] = list_files("s3://bucket/rows/a.csv")
    assert (before.size, before.version != "") == (10, True)
    s3.put("bucket/rows/a.csv", b"rows/A.csv")
    [after] = list_files("s3://bucket/rows/a.csv")
    assert after != before
    assert after == FileInfo(before.address, before.size, after.version)
    with open_input(after.address) as file:
        file.seek(5)
        assert file.read() == b"A.csv"
    with pytest.raises(BatchError, match="s3://bucket/rows/missing: there is no such file"):
        list_files("s3://bucket/rows/missing")

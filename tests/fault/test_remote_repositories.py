"""Models in S3 while servers, the storage and the disk fail: what serves goes on, and nothing is read twice."""

import hashlib
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest

from inferd.client import Client, Internal, ModelState
from tests import onnx_models
from tests.load import metric
from tests.patience import PATIENCE_S, eventually
from tests.s3 import S3Server, s3_server
from tests.server import ServerProcess, serving

_MIB = 2**20

#: Bytes of one request of a download.
_PART = 8 * _MIB

#: Elements of a table of 12 MiB, which is downloaded in two parts.
_TABLE = 3 * _MIB


def _table(size: int = _TABLE) -> bytes:
    """Return a model with as many FP32 weights, of which the largest is ten times their number, less ten."""
    return onnx_models.lookup(size).SerializeToString()


def _save_with_weights(path: Path) -> bytes:
    """Write a model with its weights in ``model.weights`` beside it, and return those."""
    model = onnx_models.lookup(_TABLE)
    path.parent.mkdir(parents=True)
    onnx.save(model, path, save_as_external_data=True, location="model.weights")
    return (path.parent / "model.weights").read_bytes()


def _answer(server: ServerProcess, model: str, size: int = _TABLE) -> bool:
    """Whether the model with a table of that size answers rightly."""
    with Client(server.grpc, timeout_s=PATIENCE_S) as client:
        result = client.infer(model, {"index": np.int64([size - 1])})
    return bool(result["y"] == np.float32([(size - 1) * 10]))


def _environment(s3: S3Server, folder: Path) -> dict[str, str]:
    return {**s3.environment, "INFERD_REMOTE__CACHE": str(folder / "cache")}


def _partial_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "cache" / "partial").glob("*"))


def test_nothing_is_read_twice(tmp_path: Path) -> None:
    """What a killed server had is there for the next one; one beside it reads nothing; new versions are read once."""
    weights = _save_with_weights(tmp_path / "words" / "1" / "model.onnx")
    arguments = ("s3://models", "--set", "repository.mode=poll", "--set", "repository.poll_interval_s=0.2")
    with ExitStack() as stack:
        s3 = stack.enter_context(s3_server(tmp_path))
        environment = _environment(s3, tmp_path)
        s3.create("models")
        s3.put_folder("models/words", tmp_path / "words")
        with s3.hold("model.weights", from_byte=_PART):
            killed = ServerProcess(*arguments, environment=environment)
            eventually(lambda: _partial_bytes(tmp_path) >= _PART, "the first part is there")
            killed.stop(signal.SIGKILL)

        first = stack.enter_context(serving(*arguments, environment=environment))
        address = "s3://models/words/1/model.weights"
        assert [each["resumed_from"] for each in first.events("download begins") if each["file"] == address] == [_PART]
        assert metric(first, "inferd_remote_downloaded_bytes_total") == len(weights) - _PART
        # What the killed server had asked for may have been sent to nobody.
        read = s3.served_bytes("words/1/")
        second = stack.enter_context(serving(*arguments, environment=environment))
        assert metric(second, "inferd_remote_files_total", outcome="cached") == 2
        assert s3.served_bytes("words/1/") == read
        assert all(_answer(server, "words") for server in (first, second))

        s3.put("models/words/2/model.onnx", _table(_TABLE + 1))
        for server in (first, second):
            server.wait_event("model ready", version="2")
            assert _answer(server, "words", _TABLE + 1)
        assert s3.served_bytes("words/2/") == len(_table(_TABLE + 1))
        s3.delete("models/words/1/model.onnx")
        for server in (first, second):
            server.wait_event("model unavailable", version="1")
        assert "very-secret" not in first.text + second.text


@contextmanager
def _small_disk(folder: Path, arguments: Sequence[str | Path], environment: dict[str, str]) -> Iterator[ServerProcess]:
    """Run a server whose cache is on a disk of 24 MiB, which is nobody else's."""
    cache = folder / "cache"
    cache.mkdir()
    mount = f'mount -t tmpfs -o size=24m tmpfs {cache} && exec "$@"'
    prefix = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh")
    server = ServerProcess(*arguments, environment=environment, prefix=prefix)
    try:
        server.wait_ready()
        yield server
    finally:
        server.process.kill()
        server.wait()


def test_failed_loads_leave_the_rest_alone(tmp_path: Path) -> None:
    """Content with another hash, a full disk, storage that dies: each is told, and what served before still does."""
    table = _table()
    pinned = {
        "s3://failing/right/1/model.onnx": hashlib.sha256(table).hexdigest(),
        "s3://failing/corrupted/1/model.onnx": hashlib.sha256(_table(8)).hexdigest(),
    }
    settings = tmp_path / "inferd.yaml"
    lines = "".join(f"    {address}: {digest}\n" for address, digest in pinned.items())
    settings.write_text(f"repository: {{mode: explicit, load: [right]}}\nremote:\n  checksums:\n{lines}")
    with ExitStack() as stack:
        s3 = stack.enter_context(s3_server(tmp_path))
        s3.create("failing")
        s3.put("failing/right/1/model.onnx", table)
        s3.put("failing/corrupted/1/model.onnx", _table(8)[:-4] + b"\0\0\0\1")
        s3.put("failing/large/1/model.onnx", _table(_TABLE + 1))
        arguments = ("s3://failing", "--config", settings)
        server = stack.enter_context(_small_disk(tmp_path, arguments, _environment(s3, tmp_path)))
        client = stack.enter_context(Client(server.grpc, timeout_s=PATIENCE_S, retry=None))

        with pytest.raises(Internal, match=r"corrupted/1/model.onnx: expected content with the SHA-256"):
            client.load_model("corrupted")
        with pytest.raises(Internal, match=r"large/1/model.onnx cannot be kept: the cache is full: \d+ bytes are need"):
            client.load_model("large")
        assert _answer(server, "right")

        s3.put("failing/right/1/model.onnx", _table(2 * _MIB + 1))
        with s3.hold("right", from_byte=_PART), ThreadPoolExecutor(1) as thread:
            load = thread.submit(client.load_model, "right")
            server.wait_event(
                "download begins", file="s3://failing/right/1/model.onnx", bytes=len(_table(2 * _MIB + 1))
            )
            s3.kill()
            with pytest.raises(Internal, match=r"s3://failing/right/1/model.onnx: .*onnect"):
                load.result(PATIENCE_S)
        assert _answer(server, "right")
        (entry,) = [entry for entry in client.repository_index() if entry.name == "right"]
        assert (entry.state, "s3://failing/right" in entry.reason) == (ModelState.READY, True)
        assert metric(server, "inferd_remote_files_total", outcome="failed") == 3


def test_downloads_cold_model_by_its_first_request(tmp_path: Path) -> None:
    """And what has changed meanwhile not before the next one."""
    arguments = ("--set", "repository.mode=poll", "--set", "repository.poll_interval_s=0.1")
    with ExitStack() as stack:
        s3 = stack.enter_context(s3_server(tmp_path))
        s3.create("models")
        for name in ("words", "digits"):
            s3.put(f"models/{name}/1/model.onnx", _table(8))
        server = stack.enter_context(
            serving(
                "s3://models", "--set", "repository.on_demand=true", *arguments, environment=_environment(s3, tmp_path)
            )
        )
        assert metric(server, "inferd_remote_downloaded_bytes_total") == 0
        assert _answer(server, "words", 8)
        assert s3.served_bytes("words") == metric(server, "inferd_remote_downloaded_bytes_total") == len(_table(8))
        listings = metric(server, "inferd_remote_listings_total")
        s3.put("models/digits/1/model.onnx", _table(16))
        eventually(lambda: metric(server, "inferd_remote_listings_total") > listings + 3, "the change is seen")
        assert s3.served_bytes("digits") == 0
        assert _answer(server, "digits", 16)

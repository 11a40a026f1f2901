"""A server of S3's protocol (moto) in a process of its own, with a record of what it has served."""

import json
import queue
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.patience import PATIENCE_S

#: A request for it tells that all earlier ones have been counted.
_MARK = "the-end-of-what-is-counted"

#: moto looks at the form of signatures only.
_SIGNED = "AWS4-HMAC-SHA256 Credential=id/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"

ROOT = Path(__file__).resolve().parent.parent


class S3Server:
    """The process. ``folder`` is empty; `hold` and `refuse` are about some requests, for as long as they say."""

    def __init__(self, folder: Path) -> None:
        self._held = folder / "held"
        self._refused = folder / "refused"
        command = [sys.executable, "-m", "tests.s3_program", str(self._held), str(self._refused)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self._requests: list[dict] = []
        self._arrived: queue.SimpleQueue[dict] = queue.SimpleQueue()
        self._port: queue.SimpleQueue[int] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._port.get(timeout=PATIENCE_S)}"

    @property
    def environment(self) -> dict[str, str]:
        """What makes clients call this server."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "very-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def create(self, bucket: str) -> None:
        """Create a bucket."""
        self._call("PUT", bucket)

    def put(self, key: str, content: bytes | Path) -> None:
        """Write the object ``BUCKET/NAME``."""
        self._call("PUT", key, content.read_bytes() if isinstance(content, Path) else content)

    def put_folder(self, key: str, folder: Path) -> None:
        """Write all files below ``folder`` below ``key``."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{key}/{path.relative_to(folder).as_posix()}", path)

    def delete(self, key: str) -> None:
        """Delete an object."""
        self._call("DELETE", key)

    def served_bytes(self, part: str) -> int:
        """Return how many bytes of objects with ``part`` in their names were sent, from the beginning."""
        self._call("GET", _MARK, fails=True)
        while _MARK not in self._arrived.get(timeout=PATIENCE_S)["path"]:
            pass
        return sum(each["bytes"] for each in self._requests if each["method"] == "GET" and part in each["path"])

    @contextmanager
    def hold(self, part: str, from_byte: int = 0) -> Iterator[None]:
        """Context in which reads of objects with ``part`` in their names, from that byte on, are not answered."""
        self._held.write_text(json.dumps([part, from_byte]))
        try:
            yield
        finally:
            self._held.unlink()

    @contextmanager
    def refuse(self, part: str) -> Iterator[None]:
        """Context in which objects with ``part`` in their names may not be written."""
        self._refused.write_text(json.dumps([part, 0]))
        try:
            yield
        finally:
            self._refused.unlink()

    def kill(self) -> None:
        """End the process at once, whatever it sends."""
        self.process.kill()
        self.process.wait()

    def _call(self, method: str, path: str, content: bytes | None = None, *, fails: bool = False) -> None:
        request = urllib.request.Request(f"{self.url}/{path}", data=content, method=method)
        request.add_header("Content-Type", "application/octet-stream")
        request.add_header("Authorization", _SIGNED)
        try:
            urllib.request.urlopen(request, timeout=PATIENCE_S).close()
        except urllib.error.HTTPError as error:
            error.close()
            if not fails:
                raise

    def _read(self) -> None:
        for line in self.process.stdout:
            found = json.loads(line)
            if "port" in found:
                self._port.put(found["port"])
            else:
                self._requests.append(found)
                self._arrived.put(found)
        self.process.stdout.close()


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Run the server."""
    server = S3Server(folder)
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def s3_bucket(folder: Path) -> Iterator[S3Server]:
    """Run the server with an empty ``bucket``, as the storage that this process finds in its environment."""
    from s3fs import S3FileSystem  # noqa: PLC0415  it takes half a second, in all tests of remote files

    with s3_server(folder) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        # Those of other tests call other servers.
        S3FileSystem.clear_instance_cache()
        server.create("bucket")
        yield server
        S3FileSystem.clear_instance_cache()

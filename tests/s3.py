"""A server of S3's protocol (moto) in a process of its own, with a record of what it has served.

Run as a program, it serves until it is killed: a line of JSON with its port, then one for each request that has ended.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parent.parent


class S3Server:
    """The process. ``folder`` is empty; `hold` stops the answers to some requests for as long as it says."""

    def __init__(self, folder: Path) -> None:
        self._held = folder / "held"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.s3", str(self._held)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
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
        self._call("GET", "the-end-of-what-is-counted", fails=True)
        while "the-end-of-what-is-counted" not in self._arrived.get(timeout=PATIENCE_S)["path"]:
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

    def kill(self) -> None:
        """End the process at once, whatever it sends."""
        self.process.kill()
        self.process.wait()

    def _call(self, method: str, path: str, content: bytes | None = None, *, fails: bool = False) -> None:
        request = urllib.request.Request(f"{self.url}/{path}", data=content, method=method)  # noqa: S310
        request.add_header("Content-Type", "application/octet-stream")
        try:
            urllib.request.urlopen(request, timeout=PATIENCE_S).close()  # noqa: S310
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


def _main(held: Path) -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_: object) -> None:
            pass

    application = DomainDispatcherApplication(create_backend_app)

    def recorded(environ: dict, start_response: object) -> list[bytes]:
        path, start = environ["PATH_INFO"], environ.get("HTTP_RANGE", "bytes=0-")
        while _is_held(held, path, int(start.removeprefix("bytes=").partition("-")[0] or 0)):
            time.sleep(0.01)
        body = b"".join(application(environ, start_response))
        request = {"method": environ["REQUEST_METHOD"], "path": path, "range": start, "bytes": len(body)}
        print(json.dumps(request), flush=True)
        return [body]

    server = make_server("127.0.0.1", 0, recorded, threaded=True, request_handler=Quiet)
    print(json.dumps({"port": server.port}), flush=True)
    server.serve_forever()


def _is_held(held: Path, path: str, start: int) -> bool:
    try:
        part, from_byte = json.loads(held.read_text())
    except (OSError, ValueError):
        return False
    return part in path and start >= from_byte


if __name__ == "__main__":
    os.environ.pop("PYTHONWARNINGS", None)
    _main(Path(sys.argv[1]))

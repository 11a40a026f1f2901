"""Serves S3's protocol by moto until it is killed: writes a line of JSON with its port, then one for each request."""

import json
import sys
import time
from pathlib import Path

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: object) -> None:
        """Write nothing."""


def main(held: Path, refused: Path) -> None:
    """Serve; the files name what is not answered, and what may not be written, while they are there."""
    moto = DomainDispatcherApplication(create_backend_app)

    def application(environ: dict, start_response: object) -> list[bytes]:
        path, bounds = environ["PATH_INFO"], environ.get("HTTP_RANGE", "bytes=0-")
        while _is_held(held, path, int(bounds.removeprefix("bytes=").partition("-")[0] or 0)):
            time.sleep(0.01)
        if environ["REQUEST_METHOD"] != "GET" and _is_held(refused, path, 0):
            # The next request comes by the same connection.
            is_chunked = environ.get("HTTP_TRANSFER_ENCODING") == "chunked"
            environ["wsgi.input"].read(-1 if is_chunked else int(environ.get("CONTENT_LENGTH") or 0))
            error = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
            start_response("403 Forbidden", [("Content-Type", "text/xml"), ("Content-Length", str(len(error)))])
            return [error]
        body = b"".join(moto(environ, start_response))
        _write({"method": environ["REQUEST_METHOD"], "path": path, "range": bounds, "bytes": len(body)})
        return [body]

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
    _write({"port": server.port})
    server.serve_forever()


def _is_held(held: Path, path: str, start: int) -> bool:
    try:
        part, from_byte = json.loads(held.read_text())
    except (OSError, ValueError):
        return False
    return part in path and start >= from_byte


def _write(facts: dict) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

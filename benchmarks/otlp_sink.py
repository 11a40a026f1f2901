"""A receiver of traces that discards them: ``python -m benchmarks.otlp_sink PORT``."""

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class _Sink(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Accept and discard it."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (as the base class names it)
        """Log nothing."""


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(sys.argv[1])), _Sink).serve_forever()

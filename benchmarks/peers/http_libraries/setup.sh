#!/usr/bin/env bash
# Libraries for HTTP, which inferd might have used.
set -euo pipefail
exec "$(dirname "$0")/../make_venv.sh" http_libraries aiohttp==3.14.5 uvicorn==0.54.0 httptools==0.9.0 granian==2.8.9 uvloop==0.23.0

#!/usr/bin/env bash
# mosec: a Rust HTTP/1.1 front end before Python worker processes.
set -euo pipefail
exec "$(dirname "$0")/../make_venv.sh" mosec mosec==0.9.8 onnxruntime==1.31.1 numpy==2.4.6

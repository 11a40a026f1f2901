#!/usr/bin/env bash
# BentoML: Starlette with adaptive batching.
set -euo pipefail
exec "$(dirname "$0")/../make_venv.sh" bentoml bentoml==1.4.39 onnxruntime==1.31.1 numpy==2.4.6

#!/usr/bin/env bash
# KServe's Python model server: the Open Inference Protocol over grpc.aio and FastAPI.
set -euo pipefail
exec "$(dirname "$0")/../make_venv.sh" kserve kserve==0.21.0 onnxruntime==1.31.1

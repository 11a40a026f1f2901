#!/usr/bin/env bash
# MLServer: the Open Inference Protocol over grpc.aio and FastAPI.
# With uvloop 0.22 its workers find no event loop.
set -euo pipefail
exec "$(dirname "$0")/../make_venv.sh" mlserver mlserver==1.7.1 onnxruntime==1.31.1 uvloop==0.21.0

#!/usr/bin/env bash
# LitServe: FastAPI before worker processes.
set -euo pipefail
exec "$(dirname "$0")/../make_venv.sh" litserve litserve==0.2.19 onnxruntime==1.31.1 numpy==2.4.6

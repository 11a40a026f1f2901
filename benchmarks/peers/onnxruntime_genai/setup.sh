#!/usr/bin/env bash
# The engine of onnxruntime-genai, in process.
set -euo pipefail
exec "$(dirname "$0")/../make_venv.sh" onnxruntime_genai onnxruntime-genai==0.18.0 onnxruntime==1.31.1 numpy==2.4.6

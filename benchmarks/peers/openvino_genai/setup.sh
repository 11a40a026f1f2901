#!/usr/bin/env bash
# The continuous batching of OpenVINO GenAI, in process.
set -euo pipefail
exec "$(dirname "$0")/../make_venv.sh" openvino_genai openvino-genai==2026.4.1.0 numpy==2.4.6

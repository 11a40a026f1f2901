#!/usr/bin/env bash
# Ray Serve: replicas as Ray actors behind an HTTP proxy.
set -euo pipefail
exec "$(dirname "$0")/../make_venv.sh" ray_serve 'ray[serve]==2.60.0' onnxruntime==1.31.1 numpy==2.4.6

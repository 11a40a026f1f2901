#!/usr/bin/env bash
# llama.cpp's server, as xllamacpp builds it; gguf writes the weights in its formats.
set -euo pipefail
exec "$(dirname "$0")/../make_venv.sh" llama_cpp xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.4.6

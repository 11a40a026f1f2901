#!/usr/bin/env bash
# Run the tests of language models, which bind memory to be written in place, against the oldest ONNX Runtime in
# setup.cfg's range. `make test` runs them against the newest.
set -euo pipefail
cd "$(dirname "$0")/.."
oldest=$(sed -nE 's/^ *onnxruntime>=([0-9.]+),.*/\1/p' setup.cfg)
venv=.venv/oldest-onnxruntime
installed="cpu onnxruntime==$oldest.*"
if [ "$(cat "$venv/.installed" 2>/dev/null)" != "$installed" ]; then
  .venv/bin/python -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --editable '.[cpu,text]' "onnxruntime==$oldest.*" \
    'onnx>=1.20,<2' 'pytest>=9,<10' 'pytest-timeout>=2.4' 'hypothesis>=6.130'
  echo "$installed" > "$venv/.installed"
fi
"$venv/bin/python" -m pytest tests/unit/runtime/test_decoder.py tests/unit/runtime/test_decoder_graph.py \
  tests/unit/runtime/test_decoder_cache.py tests/integration/test_generation_exact.py "$@"

#!/usr/bin/env bash
# Run the tests of the gRPC server, which drives private parts of grpcio, against the oldest release in setup.cfg's
# range. `make test` runs them against the newest.
set -euo pipefail
cd "$(dirname "$0")/.."
oldest=$(sed -nE 's/^ *grpcio-channelz>=([0-9.]+),.*/\1/p' setup.cfg)
venv=.venv/oldest-grpcio
installed="cpu grpcio==$oldest.*"
if [ "$(cat "$venv/.installed" 2>/dev/null)" != "$installed" ]; then
  .venv/bin/python -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --editable '.[cpu]' "grpcio==$oldest.*" \
    "grpcio-health-checking==$oldest.*" "grpcio-reflection==$oldest.*" "grpcio-channelz==$oldest.*" \
    'pytest>=9,<10' 'pytest-timeout>=2.4' 'hypothesis>=6.130'
  echo "$installed" > "$venv/.installed"
fi
"$venv/bin/python" -m pytest tests/unit/rpc tests/integration/rpc tests/fault/test_rpc_storm.py "$@"

#!/usr/bin/env bash
# Run the tests of the gRPC server, which drives private parts of grpcio, against the oldest release in setup.cfg's
# range. `make test` runs them against the newest.
set -euo pipefail
cd "$(dirname "$0")/.."
oldest=$(sed -nE 's/^ *grpcio-channelz>=([0-9.]+),.*/\1/p' setup.cfg)
venv=.venv/oldest-grpcio
if [ "$(cat "$venv/.version" 2>/dev/null)" != "$oldest" ]; then
  .venv/bin/python -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "grpcio==$oldest.*" \
    "grpcio-health-checking==$oldest.*" "grpcio-reflection==$oldest.*" "grpcio-channelz==$oldest.*" \
    'pytest>=9,<10' 'pytest-timeout>=2.4' cryptography 'hypothesis>=6.130'
  # Without its dependencies, which would bring the newest grpcio.
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --editable .
  echo "$oldest" > "$venv/.version"
fi
"$venv/bin/python" -m pytest tests/unit/rpc tests/integration/rpc tests/fault/test_rpc_storm.py "$@"

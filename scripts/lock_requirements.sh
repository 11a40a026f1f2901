#!/usr/bin/env bash
# Write requirements/: the exact versions, with the hashes of their files, that images are built from. Versions that are
# there already stay as they are unless --upgrade is given. Files that come from a mirror have the same hashes, so no
# address is written down.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p requirements

lock() {
  local name=$1; shift
  .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --custom-compile-command "scripts/lock_requirements.sh" --output-file "requirements/$name.txt" "$@"
}

lock cpu setup.cfg --extra cpu --extra batch --extra otel --extra remote --extra text "$@"
lock gpu setup.cfg --extra gpu --extra batch --extra otel --extra remote --extra text "$@"
# What makes a wheel of this directory; without isolation, so that nothing is fetched that has no hash here.
lock build - "$@" <<'BUILD'
setuptools>=77
wheel
BUILD

#!/usr/bin/env bash
# Make the virtual environment .venv/peers/NAME with exactly these packages: make_venv.sh NAME PACKAGE...
# Does nothing if it is there already with the same list.
set -euo pipefail
cd "$(dirname "$0")/../.."
name=$1
shift
folder=.venv/peers/$name
if [ "$(cat "$folder/.packages" 2>/dev/null)" != "$*" ]; then
  .venv/bin/python -m venv --clear "$folder"
  "$folder/bin/python" -m pip --disable-pip-version-check --quiet install "$@"
  echo "$*" >"$folder/.packages"
fi

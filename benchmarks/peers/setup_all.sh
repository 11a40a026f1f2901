#!/usr/bin/env bash
# Install every peer into .venv/peers. One that cannot be installed is named, and the others go on without it.
cd "$(dirname "$0")" || exit
for script in */setup.sh; do
  "$script" || echo "could not be installed: ${script%/setup.sh}" >&2
done

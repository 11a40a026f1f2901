#!/usr/bin/env bash
# Check what the tests of the status page need from the system, and take axe-core, which finds barriers, out of its npm
# package into .tools.
set -euo pipefail
cd "$(dirname "$0")/.."
version=4.14.1
digest=29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c

for program in chromium chromedriver npm; do
  command -v "$program" >/dev/null || {
    echo "the tests of the status page need chromium, its driver and npm: install them" \
      "(apt-get install chromium chromium-driver npm) and try again" >&2
    exit 1
  }
done

target=.tools/axe/axe-$version.min.js
if [ ! -f "$target" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  ( cd "$work" && npm pack --silent "axe-core@$version" >/dev/null )
  tar -xzf "$work/axe-core-$version.tgz" -C "$work" package/axe.min.js
  echo "$digest  $work/package/axe.min.js" | sha256sum --check --quiet
  mkdir -p .tools/axe
  cp "$work/package/axe.min.js" "$target"
fi

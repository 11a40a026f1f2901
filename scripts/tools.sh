#!/usr/bin/env bash
# Put prometheus and promtool into .tools/bin, out of the distribution's package and without root. No version is named:
# a distribution keeps one and replaces it by its security updates, under which an exact name would no longer be found.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.tools/bin

if [ ! -x "$bin/prometheus" ] || [ ! -x "$bin/promtool" ]; then
  package=$(mktemp -d)
  trap 'rm -rf "$package"' EXIT
  ( cd "$package"
    apt-get download prometheus >/dev/null 2>&1 || { apt-get update -qq && apt-get download prometheus >/dev/null; } \
      || { echo "the tests need prometheus and promtool (package prometheus of Debian and Ubuntu)" >&2; exit 1; }
    dpkg-deb --extract prometheus_*.deb . )
  mkdir -p "$bin"
  cp "$package"/usr/bin/{prometheus,promtool} "$bin"/
fi

version=$("$bin/promtool" --version 2>&1 | sed -nE '1s/.*version ([0-9]+\.[0-9]+).*/\1/p')
if [ "$(printf '%s\n' 2.42 "$version" | sort -V | head -1)" != 2.42 ]; then
  echo "the rules are tested with prometheus 2.42 or newer, the distribution has $version" >&2
  exit 1
fi

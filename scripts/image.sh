#!/usr/bin/env bash
# Build the image, with docker if its daemon answers and with buildah otherwise. From the environment: IMAGE, its name;
# VARIANT, cpu or gpu; arguments go to the builder, such as --build-arg PYTHON_IMAGE=...
# The same commit, base image and builder make the same layers.
set -euo pipefail
cd "$(dirname "$0")/.."

image=${IMAGE:-inferd:dev}
variant=${VARIANT:-cpu}
epoch=$(git log -1 --format=%ct)
options=(
  --tag "$image"
  --build-arg "VARIANT=$variant"
  --build-arg "SOURCE_DATE_EPOCH=$epoch"
  --build-arg "VERSION=$(sed -n 's/^version = //p' setup.cfg)"
  --build-arg "REVISION=$(git describe --always --abbrev=40 --dirty)"
  --build-arg "CREATED=$(date --utc --date "@$epoch" +%Y-%m-%dT%H:%M:%SZ)"
)
# A mirror of the package index that this machine uses serves the build as well.
pip_settings=${PIP_CONFIG_FILE:-/etc/pip.conf}
if [ -f "$pip_settings" ]; then options+=(--secret "id=pip.conf,src=$pip_settings"); fi
if [ -f "${PIP_CERT:-}" ]; then options+=(--secret "id=ca.pem,src=$PIP_CERT"); fi

if docker info >/dev/null 2>&1; then
  exec docker build "${options[@]}" "$@" .
elif command -v buildah >/dev/null; then
  # The format has a place for HEALTHCHECK, which OCI's own has not.
  exec buildah build --format docker --layers --timestamp "$epoch" "${options[@]}" "$@" .
fi
echo "neither a docker daemon nor buildah is there: install one of them (apt-get install buildah) and try again" >&2
exit 1

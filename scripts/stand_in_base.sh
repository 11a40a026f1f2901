#!/usr/bin/env bash
# Build a replacement of the image's base from Debian's packages, under the base's name, if no registry is reachable: the
# same distribution and version of Python, so that the image can be built and tested. Needs root, mmdebstrap and buildah.
set -euo pipefail
cd "$(dirname "$0")/.."

name=$(sed -n 's/^ARG PYTHON_IMAGE=//p' Dockerfile)
suite=${name##*-}
files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT
mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates "$suite" "$files/root.tar"
container=$(buildah from scratch)
buildah add --quiet "$container" "$files/root.tar" / >/dev/null
buildah config --cmd python3 "$container"
buildah commit --quiet --rm "$container" "$name" >/dev/null
echo "$name"

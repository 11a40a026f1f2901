#!/usr/bin/env bash
# Install external tools of the tests into .venv: Triton's, KServe's and OpenAI's Python clients with their dependencies,
# and perf_analyzer, Triton's load generator, out of the last wheel that carried the binary.
set -euo pipefail
cd "$(dirname "$0")/.."
pip() { .venv/bin/python -m pip --disable-pip-version-check --quiet "$@"; }

if [ ! -x .venv/tritonclient/bin/python ] || ! .venv/tritonclient/bin/python -c 'import ml_dtypes, tritonclient.grpc, tritonclient.http.aio' 2>/dev/null; then
  .venv/bin/python -m venv --clear .venv/tritonclient
  .venv/tritonclient/bin/python -m pip --disable-pip-version-check --quiet install 'tritonclient[grpc,http]==2.73.0' 'ml_dtypes>=0.5,<0.7'
fi

if [ ! -x .venv/kserve/bin/python ] || ! .venv/kserve/bin/python -c 'from kserve import InferenceRESTClient' 2>/dev/null; then
  .venv/bin/python -m venv --clear .venv/kserve
  .venv/kserve/bin/python -m pip --disable-pip-version-check --quiet install 'kserve==0.21.0'
fi

if [ ! -x .venv/openai/bin/python ] || ! .venv/openai/bin/python -c 'import openai' 2>/dev/null; then
  .venv/bin/python -m venv --clear .venv/openai
  .venv/openai/bin/python -m pip --disable-pip-version-check --quiet install 'openai==3.57.0'
fi

if [ ! -x .venv/perf_analyzer/perf_analyzer ]; then
  wheels=$(mktemp -d)
  trap 'rm -rf "$wheels"' EXIT
  pip download --no-deps --dest "$wheels" --python-version 3.10 --platform manylinux1_x86_64 \
    --only-binary=:all: tritonclient==2.49.0
  pip download --no-deps --dest "$wheels" nvidia-cuda-runtime-cu12==12.9.79
  mkdir -p .venv/perf_analyzer
  .venv/bin/python - "$wheels" <<'PY'
"""Take the binary and the one library that it is linked against out of the wheels."""
import pathlib
import sys
import zipfile

target = pathlib.Path(".venv/perf_analyzer")
for wheel in pathlib.Path(sys.argv[1]).glob("*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith("/bin/perf_analyzer") or "/lib/libcudart.so" in name:
                (target / pathlib.Path(name).name).write_bytes(archive.read(name))
(target / "perf_analyzer").chmod(0o755)
PY
fi

# perf_analyzer is linked against libb64, which only distributions carry.
if ! LD_LIBRARY_PATH=.venv/perf_analyzer ldd .venv/perf_analyzer/perf_analyzer | grep -q 'libb64.so.0d => /'; then
  package=$(mktemp -d)
  ( cd "$package"
    apt-get download libb64-0d >/dev/null 2>&1 || { apt-get update -qq && apt-get download libb64-0d >/dev/null; } \
      || { echo "perf_analyzer needs libb64 (libb64-0d on Debian and Ubuntu): install it and try again" >&2; exit 1; }
    dpkg-deb --extract libb64-0d_*.deb . )
  cp -L "$package"/usr/lib/*/libb64.so.0d .venv/perf_analyzer/
  rm -rf "$package"
fi

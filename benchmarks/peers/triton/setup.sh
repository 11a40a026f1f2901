#!/usr/bin/env bash
# Triton with its Python backend, out of the wheel of pytriton, the one package that carries the server itself.
# TRITON_WHEEL may name a wheel that has been downloaded already.
set -euo pipefail
cd "$(dirname "$0")/../../.."
# With NumPy 2 this version of the Python backend answers with empty outputs.
benchmarks/peers/make_venv.sh triton numpy==1.26.4 onnxruntime==1.30.0
folder=.venv/peers/triton
[ -x "$folder/pytriton/tritonserver/bin/tritonserver" ] && exit
if [ -z "${TRITON_WHEEL:-}" ]; then
  wheels=$(mktemp -d)
  trap 'rm -rf "$wheels"' EXIT
  .venv/bin/python -m pip --disable-pip-version-check --quiet download --no-deps --dest "$wheels" nvidia-pytriton==0.7.0
  TRITON_WHEEL=$(echo "$wheels"/*.whl)
fi
.venv/bin/python -m zipfile --extract "$TRITON_WHEEL" "$folder"
version=$("$folder/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# The stub runs model.py, so it must be the one of the Python that the packages were installed for.
cp "$folder/pytriton/tritonserver/python_backend_stubs/$version/triton_python_backend_stub" \
  "$folder/pytriton/tritonserver/backends/python/"
chmod +x "$folder/pytriton/tritonserver/bin/tritonserver" \
  "$folder/pytriton/tritonserver/backends/python/triton_python_backend_stub"

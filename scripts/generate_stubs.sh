#!/usr/bin/env bash
# Write the Python stubs and their .pyi files from protos/ to inferd/_generated.
#   scripts/generate_stubs.sh          write them
#   scripts/generate_stubs.sh --check  fail if the ones checked in are not what would be written
# The compiler is older than the grpcio of the server: generated code rejects any runtime that is older than
# its compiler, and clients should not have to follow our upgrades. It therefore has a virtual environment of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
tools=.venv/protoc
pins=(grpcio-tools==1.76.0 protobuf==6.33.5 mypy-protobuf==3.7.0 "setuptools<81")
if [ "$(cat "$tools/.pins" 2>/dev/null)" != "${pins[*]}" ]; then
  "$python" -m venv --clear "$tools"
  "$tools/bin/pip" install --quiet "${pins[@]}"
  echo "${pins[*]}" > "$tools/.pins"
fi

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
sources=(inferd/v1/inference.proto inferd/v1/generation.proto inference/grpc_service.proto inference/model_config.proto)
PATH="$tools/bin:$PATH" "$tools/bin/python" -m grpc_tools.protoc -Iprotos \
  --python_out="$out" --grpc_python_out="$out" --mypy_out=quiet:"$out" --mypy_grpc_out=quiet:"$out" "${sources[@]}"

# The generator imports siblings by their proto path; here they live below inferd._generated.
find "$out" -name '*.py*' -exec sed -i -E \
  -e 's/^(from|import) (inferd\.v1|inference)\b/\1 inferd._generated.\2/' \
  -e 's/(^|[^_.])\b(inferd\.v1|inference)\.(\w+_pb2)\./\1inferd._generated.\2.\3./g' {} +
find "$out" -mindepth 1 -type d -exec touch {}/__init__.py \;
rm -f "$out"/inference/model_config_pb2_grpc.py*
echo '"""Stubs written by `make protos` from protos/; not to be edited."""' > "$out/__init__.py"

if [ "${1:-}" = --check ]; then
  diff -r --exclude=__pycache__ "$out" inferd/_generated || { echo "stale stubs: run 'make protos' and commit inferd/_generated" >&2; exit 1; }
else
  rm -rf inferd/_generated && mkdir -p inferd/_generated && cp -r "$out"/. inferd/_generated/
fi

"""ONNX Runtime sessions: what a model takes and gives, stacking rows for it and splitting its answers."""

import os

# Read by ONNX Runtime when it is imported. Its builds send telemetry to their vendor and keep an id of the machine in a
# file; nobody who runs a server expects that of it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

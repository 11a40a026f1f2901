"""ONNX Runtime sessions: opening, signatures, batch axes, stacking and splitting of batches, warm-up."""

import os

# Read by ONNX Runtime on import. Its builds send telemetry to the vendor and store a machine id in a file, which a
# server must not do without consent.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

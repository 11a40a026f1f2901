"""ONNX Runtime sessions: what a model takes and gives, stacking rows for it and splitting its answers."""

"""inferd: a gRPC inference server for ONNX models, and its client."""

from importlib.metadata import version

__version__ = version("inferd")

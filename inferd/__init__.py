"""inferd: an inference server for ONNX models over gRPC and HTTP, and its client."""

from importlib.metadata import version

__version__ = version("inferd")

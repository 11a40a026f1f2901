"""The HTTP server; knows nothing of tensors or models."""

"""The HTTP server for metrics and probes."""

"""Spans of requests, exported with OpenTelemetry."""

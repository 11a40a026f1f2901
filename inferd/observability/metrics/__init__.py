"""Prometheus metrics and ORCA load reports."""

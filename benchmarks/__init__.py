"""Benchmarks of real servers with real load generators; each module is a command."""

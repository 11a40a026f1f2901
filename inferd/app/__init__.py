"""The server process: its components, limits, readiness and shutdown."""

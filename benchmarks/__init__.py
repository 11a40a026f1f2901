"""Measurements of a real server by a real load generator; each module runs by itself."""

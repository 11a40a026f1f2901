"""Hostile messages and callers, and measurements of how they affect a server."""

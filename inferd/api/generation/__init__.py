"""Requests to generate, of all protocols: from what is wanted to the engine of a version, and ``GenerationService``."""

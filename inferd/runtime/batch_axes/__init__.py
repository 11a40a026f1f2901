"""Infers and verifies which dimensions of a model count rows, so that requests can share a batch."""

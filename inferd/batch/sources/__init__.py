"""Readers, one for each format of inputs."""

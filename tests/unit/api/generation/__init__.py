"""Tests of inferd.api.generation."""

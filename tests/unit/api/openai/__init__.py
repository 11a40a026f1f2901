"""Tests of inferd.api.openai."""

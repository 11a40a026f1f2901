"""Tests of inferd.api.rest."""

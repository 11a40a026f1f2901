"""Stubs written by `make protos` from protos/; not to be edited."""

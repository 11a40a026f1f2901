"""The structured log and the access log."""

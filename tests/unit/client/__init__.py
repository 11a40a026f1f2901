"""The client, against a fake server."""

"""Messages and callers that mean harm: what they are, and what they do to a server."""

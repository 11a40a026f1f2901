"""Authentication, authorization with quotas, and TLS."""

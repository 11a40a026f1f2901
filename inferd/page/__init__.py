"""The status page: static files, and the data that they request."""

"""The services: wire messages to requests and results to wire messages, and errors to statuses."""

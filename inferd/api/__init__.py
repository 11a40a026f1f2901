"""gRPC services: messages to requests, results to messages, errors to statuses. One subpackage for each protocol."""

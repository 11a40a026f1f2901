"""Our own handlers and batching on the servers that come with grpcio, to show what the server of our own gives."""

"""inferd's handlers and batching on grpcio's own servers, to show what inferd's server gains."""

"""A load generator for gRPC servers, in C++, and what runs it."""

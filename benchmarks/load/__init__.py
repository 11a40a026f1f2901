"""A load generator for gRPC servers, in C++, and its Python interface."""

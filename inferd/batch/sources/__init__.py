"""Readers of the file formats of inputs, and the search for files. Each reader is a `inferd.batch.ports.Reader`."""

"""The status page: files that hold no data, and the data that they ask for."""

"""Files in remote storage, and their local cache."""

"""Generates text with language models: many sequences in one run, each as if it were alone."""

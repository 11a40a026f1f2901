"""Which models there are: where they come from, their life, and which of them answers."""

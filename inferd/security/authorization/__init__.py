"""Authorization: what a principal may call, and how much of it."""

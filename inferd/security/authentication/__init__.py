"""Authentication: which principal makes a call."""

"""One validated tree of settings, and where its values come from."""

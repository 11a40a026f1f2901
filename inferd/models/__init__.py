"""Models: where they are found, their settings, states and loading, and which version serves a request."""

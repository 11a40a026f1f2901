"""How long tests wait for what must happen: longer than any machine takes, so that it only ends a test that hangs."""

#: No outcome may depend on it. `timeout` in setup.cfg is longer, so that the test that hangs says what it waits for.
PATIENCE_S = 120.0

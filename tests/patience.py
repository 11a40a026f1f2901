"""The timeout of waits in tests: longer than any machine takes, so it only ends a test that hangs."""

#: No outcome may depend on it. `timeout` in setup.cfg is longer, so that a test that hangs reports what it waits for.
PATIENCE_S = 120.0

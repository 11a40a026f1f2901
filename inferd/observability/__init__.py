"""What operators see: metrics, the log, and health over HTTP."""

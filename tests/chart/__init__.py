"""The Helm chart, rendered by both releases of helm. Run by ``make chart``."""

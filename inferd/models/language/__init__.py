"""Load language models as model versions: settings, opening, and the process that opens them first."""

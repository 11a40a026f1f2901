"""Generation requests of all protocols: validation, tokenization, submission to the engine, replies over HTTP."""

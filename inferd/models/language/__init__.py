"""Language models as versions of models: their settings, their loading, and what is served of them."""

"""The error of a model configuration that cannot be used."""

from inferd.runtime.errors import ModelLoadError


class TritonConfigError(ModelLoadError):
    """A configuration of Triton does not parse, or asks for what cannot be honoured. The text says what to do."""

"""The error for a configuration that is invalid or not supported."""

from inferd.plain_text import clipped, escaped
from inferd.runtime.errors import ModelLoadError

#: Texts quote the configuration, whose names may be of any length.
_MAX_CHARACTERS = 1000


class TritonConfigError(ModelLoadError):
    """A configuration of Triton is invalid, or has fields that are not supported. The text says what to do."""

    def __init__(self, text: str) -> None:
        super().__init__(escaped(clipped(text, _MAX_CHARACTERS)))

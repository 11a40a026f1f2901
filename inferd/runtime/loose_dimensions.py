"""Names of dimensions that the settings say stand for several lengths."""

from collections.abc import Sequence

from inferd.runtime.errors import ModelLoadError
from inferd.runtime.signature import TensorSpec


def loose_dimensions(names: Sequence[str], inputs: Sequence[TensorSpec]) -> frozenset[str]:
    """Return ``names`` for a `ModelSignature`. Raises `ModelLoadError` for one that no open dimension of them has."""
    known = dict.fromkeys(size for spec in inputs for size in spec.shape if isinstance(size, str))
    for name in names:
        if name not in known:
            have = ", ".join(known) or "none with a name"
            msg = f"loose_dimensions: expected open dimensions of the model's inputs, which are {have}, got {name}"
            raise ModelLoadError(msg)
    return frozenset(names)

"""The whole catalogue, filled by importing the blocks."""

from tests.random_graphs import (
    control,  # noqa: F401  (as above)
    crossrow_order,  # noqa: F401
    crossrow_shapes,  # noqa: F401
    crossrow_statistics,  # noqa: F401
    elementwise,  # noqa: F401
    features,  # noqa: F401
    layers,  # noqa: F401
    places,  # noqa: F401
    texts,  # noqa: F401
)
from tests.random_graphs.blocks import CROSSROW, ROUNDABOUT, ROWWISE, Block

__all__ = ["CROSSROW", "ROUNDABOUT", "ROWWISE", "Block"]

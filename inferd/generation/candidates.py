"""The most likely tokens of many rows of logits."""

import numpy as np
from numpy.typing import NDArray

from inferd.generation.ports import Logits
from inferd.generation.request import TokenIds

#: Blocks per wanted token, and the fewest blocks: more make the bound closer, and cost more to sort.
_BLOCKS_PER_TOKEN, _MIN_BLOCKS = 8, 512
#: Lowers the bound to where it leaves out tokens that cannot be chosen.
_LOWEST = np.finfo(np.float32).min
#: Ids are below it.
_MAX_ID = 2**31 - 1


def most_likely(logits: Logits, count: int) -> tuple[Logits, TokenIds]:
    """Return the ``count`` largest logits of each row, and their ids, both [rows, count], in descending order.

    Of equal ones, lower ids come first. Rows with fewer above -inf are filled up with -inf. A row's values do not
    depend on other rows, nor does their beginning on ``count``. Rows must not contain NaN.

    A tenth of the time of a partition: the ``count``-th largest of the maxima of blocks is a lower bound, which hardly
    more than ``count`` tokens reach (1 ms instead of 13 for 50 of 49,152 in 32 rows).
    """
    rows, ids = np.divmod(np.flatnonzero(logits >= _lower_bound(logits, count)), logits.shape[1])
    keys = _sortable(logits[rows, ids]) << 32 | (_MAX_ID - ids)
    ends = np.searchsorted(rows, np.arange(len(logits)), side="right").tolist()
    largest = np.full((len(logits), count), _sortable(np.array(-np.inf, np.float32)) << 32 | _MAX_ID)
    begin = 0
    for row, end in enumerate(ends):
        ordered = np.sort(keys[begin:end])[: -count - 1 : -1]
        largest[row, : len(ordered)] = ordered
        begin = end
    return _floats(largest >> 32), _MAX_ID - (largest & _MAX_ID)


def _lower_bound(logits: Logits, count: int) -> Logits:
    """Return, [rows, 1], a bound that at least ``count`` logits of the row reach, if that many are above -inf."""
    rows, size = logits.shape
    blocks = max(_MIN_BLOCKS, count * _BLOCKS_PER_TOKEN)
    depth = size // blocks
    if depth < 2:
        return np.full((rows, 1), _LOWEST)
    # A block has every blocks-th token, so that maxima of neighbours are taken at once.
    maxima = logits[:, : depth * blocks].reshape(rows, depth, blocks).max(axis=1)
    rest = logits[:, depth * blocks :]
    beside = maxima[:, : rest.shape[1]]
    np.maximum(beside, rest, out=beside)
    maxima.partition(blocks - count, axis=1)
    bound: Logits = np.maximum(maxima[:, blocks - count, None], _LOWEST)
    return bound


def _sortable(values: Logits) -> NDArray[np.int64]:
    """Return integers in the order of ``values``."""
    bits = (values + np.float32(0)).view(np.int32)  # The sum makes -0 equal to 0.
    return np.where(bits < 0, bits ^ _MAX_ID, bits).astype(np.int64)


def _floats(sortable: NDArray[np.int64]) -> Logits:
    bits = sortable.astype(np.int32)
    return np.where(bits < 0, bits ^ _MAX_ID, bits).astype(np.int32).view(np.float32)

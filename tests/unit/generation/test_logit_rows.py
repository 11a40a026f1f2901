"""The largest logits of rows, compared with those by sorting."""

import numpy as np
import pytest

from inferd.generation.logit_rows import top_logits


def _sorted(logits, count):
    ids = np.argsort(-logits, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(logits, ids, axis=1), ids


@pytest.mark.parametrize("count", [1, 20, 256])
@pytest.mark.parametrize("vocabulary", [256, 1023, 1024, 1031, 4096, 5003, 20_001])
def test_finds_the_largest_in_descending_order(vocabulary, count):
    logits = np.random.default_rng(vocabulary + count).standard_normal((3, vocabulary)).astype(np.float32)
    values, ids = top_logits(logits, count)
    expected_values, expected_ids = _sorted(logits, count)
    assert np.array_equal(values, expected_values)
    assert np.array_equal(ids, expected_ids)


def test_of_equal_logits_lower_ids_come_first():
    rng = np.random.default_rng(1)
    logits = rng.integers(-3, 3, (4, 6000)).astype(np.float32)
    logits[:2] *= -0.0  # zeros of both signs are equal
    values, ids = top_logits(logits, 50)
    expected_values, expected_ids = _sorted(logits, 50)
    assert np.array_equal(values, expected_values)
    assert np.array_equal(ids, expected_ids)


def test_rows_may_be_views_that_are_not_contiguous():
    logits = np.random.default_rng(2).standard_normal((8, 3000)).astype(np.float32)
    assert np.array_equal(top_logits(logits[::2, :2500], 9)[1], _sorted(logits[::2, :2500], 9)[1])


def test_finds_the_largest_among_neighbours():
    logits = np.random.default_rng(3).standard_normal((2, 5000)).astype(np.float32)
    logits[0, 4000:4100] += 100
    logits[1, 100::512] += 100
    assert np.array_equal(top_logits(logits, 64)[1], _sorted(logits, 64)[1])


def test_leaves_out_tokens_that_cannot_be_chosen():
    logits = np.full((2, 5000), -np.inf, np.float32)
    logits[0, [7, 4999]] = [1.5, -2.5]
    values, ids = top_logits(logits, 4)
    assert values.tolist() == [[1.5, -2.5, -np.inf, -np.inf], [-np.inf] * 4]
    assert ids[0, :2].tolist() == [7, 4999]


def test_infinite_logits_come_first():
    logits = np.zeros((1, 3000), np.float32)
    logits[0, [5, 2000]] = np.inf
    assert top_logits(logits, 2)[1].tolist() == [[5, 2000]]

"""Bisection of failed batches."""

from inferd.batching.bisection import Bisection
from tests.fakes import Caller


def _groups(number, failing):
    """Return the sizes of the groups that run after a batch of ``number`` failed, and the requests that fail alone."""
    requests = [Caller().request for _ in range(number)]
    bad = {requests[position] for position in failing}
    search, sizes, found = Bisection(requests), [], []
    while (group := search.next()) is not None:
        sizes.append(len(group))
        if bad.isdisjoint(group):
            continue
        if len(group) > 1:
            search.failed(group)
        else:
            found.append(requests.index(group[0]))
    return sizes, found


def test_finds_one_failing_request_by_halving():
    """In at most 2 log2(n) runs."""
    sizes, found = _groups(32, [13])
    assert sizes == [16, 16, 8, 8, 4, 4, 2, 2, 1, 1]
    assert found == [13]


def test_runs_largest_groups_first():
    """They have the most requests that may succeed."""
    sizes, found = _groups(16, [0, 15])
    assert sizes == [8, 8, 4, 4, 4, 4, 2, *8 * [1]]
    assert sorted(found) == [0, 15]


def test_runs_each_request_alone_after_several_failures():
    """Further groups would most likely fail too."""
    sizes, found = _groups(32, range(32))
    assert sizes == [16, 16, 8, 8, 8, 8, 4] + 32 * [1]
    assert sorted(found) == list(range(32))


def test_runs_both_requests_of_a_pair_alone():
    """The smallest batch that can fail together."""
    assert _groups(2, [0, 1]) == ([1, 1], [0, 1])

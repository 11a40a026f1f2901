"""Finding the requests that make a batch fail."""

from inferd.batching.bisection import Bisection
from tests.fakes import Caller


def _groups(number, failing):
    """The sizes of the groups that run after a batch of so many has failed, and which requests ran alone and failed."""
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
    """In twice the logarithm of their number."""
    sizes, found = _groups(32, [13])
    assert sizes == [16, 16, 8, 8, 4, 4, 2, 2, 1, 1]
    assert found == [13]


def test_the_largest_groups_come_first():
    """They have the most requests that may be answered."""
    sizes, found = _groups(16, [0, 15])
    assert sizes == [8, 8, 4, 4, 4, 4, 2, *8 * [1]]
    assert sorted(found) == [0, 15]


def test_after_some_failures_every_request_runs_alone():
    """Further groups would most likely fail as well."""
    sizes, found = _groups(32, range(32))
    assert sizes == [16, 16, 8, 8, 8, 8, 4] + 32 * [1]
    assert sorted(found) == list(range(32))


def test_of_two_each_runs_alone():
    """The smallest batch that can fail together."""
    assert _groups(2, [0, 1]) == ([1, 1], [0, 1])

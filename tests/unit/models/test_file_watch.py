"""Which versions have changed and are completely written, with a fake clock."""

from collections.abc import Mapping

from inferd.models.fingerprint import Fingerprint
from inferd.models.poller import Changes, FileWatch, VersionKey
from tests.fakes import FakeClock

ONE, TWO = ("ranker", "1"), ("ranker", "2")
NOTHING = Changes(settled={}, gone=frozenset())


class Watched:
    """A watch with a poll every ``interval_s``."""

    def __init__(self, interval_s: float = 15.0, settle_s: float = 1.0) -> None:
        self.clock = FakeClock()
        self._watch = FileWatch(settle_s=settle_s, clock=self.clock)
        self._interval_s = interval_s

    def poll(self, listing: Mapping[VersionKey, Fingerprint]) -> Changes:
        changes = self._watch.poll(listing)
        self.clock.advance(self._interval_s)
        return changes


def files(**sizes: int) -> Fingerprint:
    return frozenset((name, size, 0, 0) for name, size in sizes.items())


def settled(*versions: VersionKey, of: Fingerprint) -> Changes:
    return Changes(settled=dict.fromkeys(versions, of), gone=frozenset())


def test_reports_version_that_is_the_same_in_two_polls_once() -> None:
    watch = Watched()
    listing = {ONE: files(model=5)}
    assert [watch.poll(listing) for _ in range(4)] == [NOTHING, settled(ONE, of=listing[ONE]), NOTHING, NOTHING]


def test_starts_over_with_each_change() -> None:
    watch = Watched()
    for size in range(5):
        assert watch.poll({ONE: files(model=size)}) == NOTHING
    assert watch.poll({ONE: files(model=4, weights=1)}) == NOTHING
    assert watch.poll({ONE: files(model=4, weights=1)}) == settled(ONE, of=files(model=4, weights=1))


def test_versions_settle_independently() -> None:
    watch = Watched()
    watch.poll({ONE: files(model=1), TWO: files(model=1)})
    assert watch.poll({ONE: files(model=1), TWO: files(model=2)}) == settled(ONE, of=files(model=1))
    assert watch.poll({ONE: files(model=1), TWO: files(model=2)}) == settled(TWO, of=files(model=2))


def test_reports_change_of_known_version() -> None:
    watch = Watched()
    for _ in range(2):
        watch.poll({ONE: files(model=1)})
    assert watch.poll({ONE: files(model=2)}) == NOTHING
    assert watch.poll({ONE: files(model=2)}) == settled(ONE, of=files(model=2))


def test_reports_nothing_when_change_is_taken_back() -> None:
    """Also if it is made again later: that starts over."""
    watch = Watched()
    old, new = {ONE: files(model=1)}, {ONE: files(model=2)}
    for listing in (old, old):
        watch.poll(listing)
    assert [watch.poll(listing) for listing in (new, old, new)] == [NOTHING] * 3
    assert watch.poll(new) == settled(ONE, of=files(model=2))


def test_deletion_takes_two_polls_as_well() -> None:
    watch = Watched()
    for _ in range(2):
        watch.poll({ONE: files(model=1)})
    assert watch.poll({}) == NOTHING
    assert watch.poll({}) == Changes(settled={}, gone=frozenset({ONE}))
    assert watch.poll({}) == NOTHING


def test_version_that_is_missing_for_one_poll_is_not_gone() -> None:
    """As while a directory is replaced by another."""
    watch = Watched()
    listing = {ONE: files(model=1)}
    for _ in range(2):
        watch.poll(listing)
    assert [watch.poll(each) for each in ({}, listing, {}, listing)] == [NOTHING] * 4


def test_new_version_that_disappears_is_never_reported() -> None:
    watch = Watched()
    assert [watch.poll(each) for each in ({ONE: files(model=1)}, {}, {}, {})] == [NOTHING] * 4
    assert watch.poll({ONE: files(model=1)}) == NOTHING


def test_polls_in_quick_succession_decide_nothing() -> None:
    """A file may be written twice within the resolution of its times."""
    watch = Watched(interval_s=0.3, settle_s=1.0)
    listing = {ONE: files(model=1)}
    assert [watch.poll(listing) for _ in range(4)] == [NOTHING] * 4
    assert watch.poll(listing) == settled(ONE, of=files(model=1))


def test_times_of_files_are_compared_with_each_other_only() -> None:
    """The wall clock may jump: a file from the future settles, and so does one that is older than the last."""
    watch = Watched()
    for time_ns in (2**62, 5, -1):
        listing = {ONE: frozenset({("model.onnx", 1, time_ns, time_ns)})}
        assert watch.poll(listing) == NOTHING
        assert watch.poll(listing) == settled(ONE, of=listing[ONE])


# Fingerprints of real files.

"""Uploads that are interrupted anywhere, and polls at any time between their steps."""

from hypothesis import given
from hypothesis import strategies as st

from inferd.models.fingerprint import Fingerprint
from inferd.models.poller import FileWatch, VersionKey
from tests.fakes import FakeClock

KEYS = [("a", "1"), ("a", "2"), ("b", "1")]
STILL_S = 1.0

#: What is there at one poll, by a number for the state of all files of a version; and the time to the next poll.
looks = st.lists(
    st.tuples(st.dictionaries(st.sampled_from(KEYS), st.integers(0, 2)), st.sampled_from([0.1, 0.6, 15.0])), max_size=40
)


@given(looks)
def test_reports_only_what_two_looks_agree_on(looks: list[tuple[dict[VersionKey, int], float]]) -> None:
    """A report is news, and has been so since an earlier look at least as long as required; in the end all is known."""
    clock = FakeClock()
    watch = FileWatch(settle_s=STILL_S, clock=clock)
    known: dict[VersionKey, Fingerprint] = {}
    since: dict[VersionKey, tuple[Fingerprint | None, float]] = {}
    last = looks[-1][0] if looks else {}
    for states, interval in [*looks, (last, STILL_S), (last, 0.0)]:
        listing = {key: state_of(number) for key, number in states.items()}
        for key in KEYS:
            if key not in since or since[key][0] != listing.get(key):
                since[key] = (listing.get(key), clock())
        changes = watch.poll(listing)
        for key, files in changes.settled.items():
            assert known.get(key) != files == listing[key]
            known[key] = files
        for key in changes.gone:
            assert key not in listing
            del known[key]
        for key in {*changes.settled, *changes.gone}:
            assert clock() - since[key][1] >= STILL_S
        clock.advance(interval)
    assert known == {key: state_of(number) for key, number in last.items()}


uploads = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=6), min_size=1, max_size=6)


@given(uploads, st.integers(0, 4))
def test_upload_that_goes_on_between_polls_is_never_reported(uploads: list[list[int]], polls_after: int) -> None:
    """Each upload has a number of steps between polls; what is reported is the end of one."""
    clock = FakeClock()
    watch = FileWatch(settle_s=STILL_S, clock=clock)
    step = 0
    complete = set()
    for upload in uploads:
        for steps in upload:
            step += steps
            assert set(poll(watch, clock, step)) <= complete
        complete.add(step)
        for _ in range(polls_after):
            assert set(poll(watch, clock, step)) <= {step}
    assert complete


def poll(watch: FileWatch, clock: FakeClock, step: int) -> list[int]:
    changes = watch.poll({KEYS[0]: state_of(step)})
    clock.advance(15.0)
    return [size for files in changes.settled.values() for _, size, *_ in files]


def state_of(number: int) -> Fingerprint:
    return frozenset({("model.onnx", number, 0, 0)})

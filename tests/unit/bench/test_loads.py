"""When requests are sent: processes, traces, and how workers share them."""

from itertools import islice, takewhile

import numpy as np
import pytest

from inferd.bench.loads import Arrival, ClosedLoop, OpenLoop, Trace, parse_trace


def _times(load, count, seed=0):
    return [arrival.at_s for arrival in islice(load.arrivals(np.random.default_rng(seed)), count)]


def test_poisson_has_its_rate_and_variance():
    """Gaps of a Poisson process: their standard deviation equals their mean."""
    gaps = np.diff([0.0, *_times(OpenLoop(rate_per_s=50), 20_000)])
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps.std() == pytest.approx(1 / 50, rel=0.03)


def test_seed_repeats_arrivals():
    """The same seed gives the same times, another one others."""
    load = OpenLoop(rate_per_s=50)
    assert _times(load, 100) == _times(load, 100)
    assert _times(load, 100) != _times(load, 100, seed=1)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_shares_of_constant_rate_interleave(workers):
    """All workers together send at even distances."""
    load = OpenLoop(rate_per_s=30, process="constant")
    shares = (load.share(worker, workers) for worker in range(workers))
    times = sorted(moment for share in shares for moment in takewhile(lambda at_s: at_s < 1 - 1e-9, _times(share, 100)))
    assert times == pytest.approx([number / 30 for number in range(30)])


def test_shares_of_poisson_have_the_whole_rate():
    """Poisson processes of half the rate make one of the whole."""
    load = OpenLoop(rate_per_s=30)
    assert sum(load.share(worker, 2).rate_per_s for worker in range(2)) == 30


@pytest.mark.parametrize(("concurrency", "workers"), [(64, 3), (2, 4), (1, 1)])
def test_shares_of_closed_loop(concurrency, workers):
    """Together all requests in flight, as evenly as it can be."""
    shares = [ClosedLoop(concurrency=concurrency).share(worker, workers).concurrency for worker in range(workers)]
    assert sum(shares) == concurrency
    assert max(shares) - min(shares) <= 1


def test_trace_counts_from_its_first_time():
    """Column names and empty lines are passed over, rows may be left out."""
    trace = parse_trace(["seconds,rows", "1700000000.5,4", "", "1700000001.0", "1700000001.0, 2"])
    assert trace.entries == (Arrival(0.0, 4), Arrival(0.5), Arrival(0.5, 2))
    assert trace.until(0.5).entries == (Arrival(0.0, 4),)
    assert [len(trace.share(worker, 2).entries) for worker in range(2)] == [2, 1]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "expected lines of SECONDS or SECONDS,ROWS, got none"),
        (["seconds"], "expected lines of SECONDS or SECONDS,ROWS, got none"),
        (["0", "nan"], 'line 2: seconds: expected a number, got "nan"'),
        (["0,0"], 'line 1: rows: expected an integer of at least 1, got "0"'),
        (["0,1,2"], "line 1: expected SECONDS or SECONDS,ROWS, got 3 fields"),
        (["2", "1.5"], "line 2: expected a time of at least 2, got 1.5"),
    ],
)
def test_invalid_traces(lines, message):
    """The line, what was expected and what came."""
    with pytest.raises(ValueError) as error:
        parse_trace(lines)
    assert str(error.value) == message


def test_trace_share_sends_everything_once():
    """No arrival is lost or doubled."""
    trace = Trace(entries=tuple(Arrival(float(number)) for number in range(7)))
    shares = [entry for worker in range(3) for entry in trace.share(worker, 3).entries]
    assert sorted(shares) == list(trace.entries)

"""Actions as a fake process grows."""

import itertools

import grpc
import pytest

from inferd.rpc.call import CoreUnaryCall
from inferd.rpc.live_calls import LiveCalls
from inferd.rpc.memory_guard import MemoryGuard, MemoryMeter
from inferd.rpc.stream_call import CoreStreamCall
from tests.unit.rpc.fakes import FakeCoreCall, FakeLoop, Recorder, receive_one

MIB = 1024 * 1024
BASE = 100 * MIB
BUDGET = 800 * MIB


class FakePool:
    """A thread that runs its work when the test says."""

    def __init__(self):
        self.work = []

    def submit(self, work):
        self.work.append(work)
        return True


class Bench:
    """A guard over calls on fake cores; ``grown`` is the growth of the process in MiB."""

    def __init__(self):
        self.loop, self.recorder, self.pool = FakeLoop(), Recorder(), FakePool()
        self.live = LiveCalls(self.loop, (self.recorder.finished,))
        self.grown = 0
        self.garbage = 0
        self.is_steady = True
        meter = MemoryMeter(
            resident=lambda: BASE + self.grown * MIB,
            give_back=self.give_back,
            is_steady=lambda: self.is_steady,
        )
        self.guard = MemoryGuard(BUDGET, meter, self.live, self.pool)

    def give_back(self):
        self.grown -= self.garbage
        self.garbage = 0

    def call(self, kind=CoreUnaryCall):
        return kind(FakeCoreCall(), self.live, "/x.Y/Z", (), float("inf"), self.loop.now())

    def upload(self):
        """Start a call whose message does not complete."""
        call = self.call()
        receive_one(call)
        return call

    def receive(self, size):
        """Start a call with a complete message and no answer."""
        call = self.upload()
        call.core_call.complete("ReceiveMessage", message=bytes(size))
        return call

    def stream(self, *messages):
        call = self.call(CoreStreamCall)
        call.serve(lambda call: Listener())
        for message in messages:
            call.read()
            call.core_call.complete("ReceiveMessage", message=message)
        return call

    def check(self, after_s=0.0):
        """Check, then return the freed memory."""
        self.loop.clock.advance(after_s)
        interval_s = self.guard.check()
        while self.pool.work:
            self.pool.work.pop(0)()
            self.loop.run_soon()
        return interval_s

    @property
    def refuses(self):
        return self.live.is_short_of_memory

    @property
    def codes(self):
        return [code.name for code, _ in self.recorder.ends]


class Listener:
    def on_message(self, message):
        pass

    def on_terminated(self):
        pass


def test_rejects_calls_between_two_watermarks():
    """From three quarters on until less than five eighths are taken, a hysteresis."""
    bench = Bench()
    bench.receive(MIB)
    seen = []
    for grown in (599, 600, 501, 499, 599):
        bench.grown = grown
        bench.check()
        seen.append(bench.refuses)
    assert seen == [False, True, True, False, False]
    assert bench.codes == []


def test_ends_the_oldest_uploads_until_there_is_room():
    """As many as hold the excess if each holds the same."""
    bench = Bench()
    uploads = [bench.upload() for _ in range(9)]
    bench.grown = 720
    bench.garbage = 240
    bench.check()
    ended = [call.ended_at < float("inf") for call in uploads]
    assert ended == [True] * 4 + [False] * 5
    assert bench.codes == ["RESOURCE_EXHAUSTED"] * 4
    assert bench.live.refusals.counts["MEMORY_BUDGET"] == 4
    bench.check()
    assert not bench.refuses


def test_frees_a_bounded_amount_at_a_time():
    """Returning memory delays other work, so the rest is freed later."""
    bench = Bench()
    uploads = [bench.upload() for _ in range(8)]
    bench.grown = 1600
    bench.check()
    assert sum(call.ended_at < float("inf") for call in uploads) == 2
    bench.check()
    assert sum(call.ended_at < float("inf") for call in uploads) == 3


def test_ends_uploads_if_rejecting_does_not_help():
    """Uploads that stall below the watermark would otherwise block all other calls."""
    bench = Bench()
    bench.upload()
    bench.grown = 610
    bench.check()
    bench.check(after_s=0.9)
    assert bench.codes == []
    bench.check(after_s=0.2)
    assert bench.codes == ["RESOURCE_EXHAUSTED"]


def test_limits_growth_while_memory_is_returned():
    """Further uploads end for each eighth of the budget, and their memory is returned right after."""
    bench = Bench()
    for _ in range(12):
        bench.upload()
    bench.grown = 720
    bench.guard.check()
    ended = [len(bench.codes)]
    for grown in (819, 820, 919, 920):
        bench.grown = grown
        bench.guard.check()
        ended.append(len(bench.codes))
    assert ended[0] == ended[1] < ended[2] == ended[3] < ended[4]
    assert len(bench.pool.work) == 1
    bench.garbage = 500
    bench.pool.work.pop()()
    bench.loop.run_soon()
    assert len(bench.pool.work) == 1, "given back once more"
    bench.check()
    bench.check()
    assert not bench.refuses
    assert len(bench.codes) == ended[-1]


def test_decides_nothing_while_memory_is_returned():
    """Freed memory is not measurable yet and would be freed twice."""
    bench = Bench()
    for _ in range(4):
        bench.upload()
    bench.grown = 720
    bench.guard.check()
    ended = len(bench.codes)
    assert 0 < ended < 4
    bench.guard.check()
    assert len(bench.codes) == ended
    assert len(bench.pool.work) == 1


def test_does_not_end_calls_with_a_complete_message():
    """They will be answered, and their memory is known and does not grow."""
    bench = Bench()
    bench.receive(300 * MIB)
    bench.grown = 900
    for _ in range(10):
        bench.check(after_s=1.0)
    assert bench.codes == []
    assert bench.refuses


def test_ends_calls_whose_answer_is_not_sent():
    """After some seconds; only a cancel makes the core free them."""
    bench = Bench()
    call = bench.receive(1)
    call.reply(b"answer")
    call.ended_at = bench.loop.now()
    bench.grown = 900
    bench.check(after_s=2.0)
    assert call.core_call.cancels == 0
    bench.check(after_s=6.0)
    assert call.core_call.cancels == 1


def test_ends_streams_last_and_silent_ones_first():
    """Streams with an incomplete message cannot be distinguished from silent ones."""
    bench = Bench()
    talking, silent, upload = bench.stream(b"message"), bench.stream(), bench.upload()
    bench.grown = 720
    ends = []
    for _ in range(2):
        bench.check()
        ends.append([call.ended_at < float("inf") for call in (upload, silent, talking)])
    assert ends == [[True, False, False], [True, True, False]]


def test_serves_on_if_the_process_grew_for_other_reasons():
    """It would otherwise reject all calls without end."""
    bench = Bench()
    bench.grown = 2000
    bench.check()
    assert bench.refuses
    bench.check()
    assert not bench.refuses
    bench.grown = 2599
    bench.check()
    assert not bench.refuses
    bench.grown = 2600
    bench.check()
    assert bench.refuses


def test_does_not_end_a_call_before_its_message_could_be_read():
    """Only from the second check on; until then, the process may have grown because of it."""
    bench = Bench()
    bench.grown = 2000
    ends = []
    older = newer = None
    for _ in range(2):
        bench.loop.clock.advance(0.001)
        older, newer = newer, bench.upload()
        bench.check(after_s=0.01)
        ends.append((bench.codes.copy(), bench.refuses))
    assert ends == [([], True), (["RESOURCE_EXHAUSTED"], True)]
    assert older.ended_at < newer.ended_at


def test_shrunk_process_has_more_room():
    """The baseline follows it down."""
    bench = Bench()
    bench.receive(MIB)
    bench.grown = -50
    bench.check()
    assert bench.guard.use.taken_bytes == 0
    bench.grown = 549
    bench.check()
    assert not bench.refuses
    bench.grown = 550
    bench.check()
    assert bench.refuses


def test_models_that_come_or_go_give_requests_no_more_and_no_less():
    """Meanwhile part of their memory is missing from what is measured, which would be taken for a smaller process."""
    bench = Bench()
    bench.receive(MIB)
    bench.is_steady, bench.grown = False, -50
    bench.check()
    bench.is_steady, bench.grown = True, 0
    bench.check()
    assert bench.guard.use.taken_bytes == 0


@pytest.mark.parametrize(("grown", "given_back"), [(15, False), (17, True)])
def test_returns_freed_memory_when_quiet(grown, given_back):
    """If it is enough; until then the timer runs."""
    bench = Bench()
    call = bench.receive(17 * MIB)
    bench.grown = bench.garbage = grown
    bench.check(after_s=5.0)
    assert bench.grown == grown
    call.reply(b"")
    call.core_call.complete("SendStatusFromServer")
    call.core_call.complete("ReceiveCloseOnServer")
    bench.check(after_s=0.5)
    assert bench.grown == grown
    assert bench.guard.is_settled is not given_back
    bench.check(after_s=1.0)
    assert bench.grown == (0 if given_back else grown)
    assert bench.guard.is_settled


@pytest.mark.parametrize(("grown", "counted"), [(300, 0), (500, 100)])
def test_memory_held_without_calls_is_baseline(grown, counted):
    """Up to half of the budget, so that memory that is not returned cannot add up."""
    bench = Bench()
    bench.grown = grown
    settled = []
    for seconds in (2.0, 3.0, 5.0):
        bench.check(after_s=seconds)
        settled.append(bench.guard.is_settled)
    assert settled == [False, False, True]
    assert bench.guard.use.taken_bytes == counted * MIB


def test_memory_freed_late_is_returned_too():
    """The core may free what an ended call held after memory was last returned."""
    bench = Bench()
    bench.grown = 300
    bench.check(after_s=1.1)
    assert bench.grown == 300
    bench.garbage = 300
    bench.check(after_s=2.1)
    assert bench.grown == 0
    assert bench.guard.is_settled


def test_backs_off_if_nothing_is_returned():
    """To every eight seconds, as memory may be freed later; success resets the interval."""
    bench = Bench()
    bench.upload()
    bench.grown = 100
    bench.check()
    tries = []
    for tenths in range(400):
        given_back = bench.guard._trimmer.started_at
        bench.check(after_s=0.1)
        if bench.guard._trimmer.started_at != given_back:
            tries.append(tenths / 10)
    waits = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert waits == pytest.approx([2.0, 4.0, 8.0, 8.0, 8.0, 8.0], abs=0.15)
    bench.garbage = 40
    bench.check(after_s=8.0)
    assert bench.grown == 60
    bench.garbage = 20
    bench.check(after_s=1.1)
    assert bench.grown == 40


def test_returns_freed_memory_before_rejecting():
    """Under load as well, from half of the budget on, for each eighth of growth."""
    bench = Bench()
    bench.receive(MIB)
    bench.grown, bench.garbage = 450, 100
    bench.check()
    assert bench.grown == 350
    bench.grown, bench.garbage = 440, 100
    bench.check()
    assert bench.grown == 440


def test_checks_more_often_near_the_budget():
    """Never later than growth at full speed would reach the watermark."""
    bench = Bench()
    bench.receive(MIB)
    intervals = []
    for grown in (0, 400, 590, 700):
        bench.grown = grown
        intervals.append(bench.check())
    assert intervals == sorted(intervals, reverse=True)
    assert intervals[0] == pytest.approx(700 / 2048)
    assert intervals[-1] == 0.01


def test_counts_messages_of_live_calls():
    """For a stream, the latest one."""
    bench = Bench()
    unary, stream = bench.receive(1000), bench.stream(b"x" * 10, b"x" * 300)
    assert bench.live.held_bytes == 1300
    for call in (unary, stream):
        call.abort(grpc.StatusCode.CANCELLED, "")
        call.core_call.complete("SendStatusFromServer")
        call.core_call.complete("ReceiveCloseOnServer")
    assert bench.live.held_bytes == 0
    assert bench.live.count == 0

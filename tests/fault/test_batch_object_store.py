"""The output of a job in remote storage that fails at any call, and locks there while processes die and sleep."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import pytest

from inferd.batch.errors import BatchError, InUseError
from inferd.batch.manifest import Manifest
from inferd.batch.remote_folder import RemoteFolder
from tests.object_store import ObjectStore
from tests.parts_job import PARTS, content, run_parts

_ROOT = "objects://bucket/jobs"


@pytest.fixture(autouse=True)
def _store() -> Iterator[None]:
    ObjectStore.reset()
    yield
    ObjectStore.reset()


def _manifest(name: str, sleep: Callable[[float], None] = lambda _: None) -> Manifest:
    """Return that of an output, whose processes wait for nothing."""
    if "." not in name:
        folder = RemoteFolder(f"{_ROOT}/{name}", sleep=sleep)
        return Manifest(folder, work="_inferd", parts_in="", suffix=".jsonl")
    folder = RemoteFolder(_ROOT, sleep=sleep)
    return Manifest(folder, work=f"{name}.inferd", parts_in=f"{name}.inferd/data", suffix=".jsonl", joined=name)


def _undisturbed(name: str, job: str = "a") -> dict[str, bytes]:
    run_parts(_manifest(name), job)
    expected = dict(ObjectStore.objects)
    ObjectStore.reset()
    return expected


def _fails(first: int, *, for_good: bool) -> Callable[[int, str], None]:
    def before(number: int, name: str) -> None:
        if number == first or (for_good and number > first):
            raise ConnectionError(f"cannot {name}")

    return before


@contextmanager
def _advice() -> Iterator[None]:
    """Context that may end with an error that says what failed and what to do."""
    try:
        yield
    except BatchError as error:
        text = str(error)
    else:
        return
    assert re.fullmatch("objects://.*: ConnectionError: cannot .*; run it again when that is fixed: it continues", text)


@pytest.mark.parametrize("name", ["out", "out.jsonl"])
@pytest.mark.parametrize("for_good", [False, True], ids=["one call", "all from then on"])
def test_storage_fails_at_any_call(name: str, *, for_good: bool) -> None:
    """The run fails with what to do, or needs not; the next one goes on to the same objects, and no more."""
    expected = _undisturbed(name)
    for at in range(1000):
        ObjectStore.reset()
        ObjectStore.restart(_fails(at, for_good=for_good))
        with _advice():
            run_parts(_manifest(name))
        if len(ObjectStore.calls) <= at:
            assert at > 40
            return
        ObjectStore.restart()
        run_parts(_manifest(name))
        assert ObjectStore.objects == expected, at
    pytest.fail("it never ends")


@pytest.mark.parametrize("name", ["out", "out.jsonl"])
@pytest.mark.parametrize("parts", [PARTS - 1, PARTS])
def test_overwriting_ends_at_any_call(name: str, parts: int) -> None:
    """Either job, run without --overwrite, then has its own answers or refuses; never those of the other."""
    expected = {job: _undisturbed(name, job) for job in ("a", "b")}
    for at in range(1000):
        ObjectStore.reset()
        run_parts(_manifest(name), "a", parts=parts)
        ObjectStore.restart(_fails(at, for_good=True))
        with suppress(BatchError):
            run_parts(_manifest(name), "b", overwrite=True)
        if len(ObjectStore.calls) <= at:
            return
        left = dict(ObjectStore.objects)
        for job, overwrite in (("a", False), ("b", False), ("b", True)):
            ObjectStore.reset()
            ObjectStore.objects.update(left)
            try:
                run_parts(_manifest(name), job, overwrite=overwrite)
            except BatchError:
                assert not overwrite
            else:
                assert ObjectStore.objects == expected[job]


def test_second_run_refuses() -> None:
    """As long as the first one renews its lock."""
    first, second = RemoteFolder(_ROOT), None

    def sleep(_: float) -> None:
        first._locks[0].renew()

    second = RemoteFolder(_ROOT, sleep=sleep)
    with first.lock("lock"):
        with pytest.raises(InUseError, match="objects://bucket/jobs is in use"), second.lock("lock"):
            pass
        assert second.held(["lock", "other"]) == ["lock"]
    with second.lock("lock"):
        pass
    assert not ObjectStore.objects


def test_lock_of_a_killed_process_is_taken_over() -> None:
    """Nobody has renewed it meanwhile."""
    ObjectStore.objects["bucket/jobs/lock"] = b"someone 7"
    waits: list[float] = []
    with RemoteFolder(_ROOT, sleep=waits.append).lock("lock"):
        assert ObjectStore.objects["bucket/jobs/lock"] != b"someone 7"
    assert waits[0] >= 30
    assert not ObjectStore.objects


def test_process_that_slept_completes_nothing() -> None:
    """Its lock was taken over meanwhile: what it has written is not there, and the lock stays the other's."""
    asleep, other = RemoteFolder(_ROOT), RemoteFolder(_ROOT, sleep=lambda _: None)
    with ExitStack() as stack:
        stack.enter_context(asleep.lock("lock"))
        part = stack.enter_context(ExitStack())
        part.enter_context(asleep.create("part")).write(b"late")
        stack.enter_context(other.lock("lock"))
        asleep._locks[0].renew()
        with pytest.raises(InUseError, match="was taken over"):
            part.close()
        other._locks[0].require()
        assert list(ObjectStore.objects) == ["bucket/jobs/lock"]
    assert not ObjectStore.objects


@pytest.mark.parametrize("at", range(8))
def test_two_take_a_lock_over_at_once(at: int) -> None:
    """The second one comes at any call of the first one's: at most one of them completes anything."""
    ObjectStore.objects["bucket/jobs/lock"] = b"killed 7"
    completed: list[str] = []

    def work(name: str) -> None:
        folder = RemoteFolder(_ROOT, sleep=lambda _: None)
        with suppress(BatchError), folder.lock("lock"):
            meet(name)
            with folder.create(name) as file:
                file.write(b"x")
            completed.append(name)

    def meet(name: str) -> None:
        # The one that was interrupted goes on before the other one has written anything.
        if name == "second":
            raise InUseError("ended by the test")

    ObjectStore.restart(lambda number, _: work("second") if number == at else None)
    work("first")
    assert len(completed) <= 1


def test_error_of_an_input_is_no_error_of_the_output() -> None:
    """What fails while a file is written, and is not of it, is raised as it is; the file is not there."""
    with ExitStack() as stack, pytest.raises(OSError, match=r"^of an input$"):  # noqa: PT012  (it is the context's end)
        file = stack.enter_context(RemoteFolder(_ROOT).create("part"))
        file.write(b"x")
        stack.callback(_fail)
        stack.close()
    assert not ObjectStore.objects


def _fail() -> None:
    raise OSError("of an input")


def test_write_that_was_answered_late() -> None:
    """It was done although it failed; tried again, the object is there, and it is one's own."""
    folder = RemoteFolder(_ROOT)
    store = partial(folder.create_new, "manifest.json")
    assert store(b"mine")
    assert store(b"mine")
    assert not store(b"another's")
    assert ObjectStore.objects == {"bucket/jobs/manifest.json": b"mine"}


def test_parts_have_their_content() -> None:
    """The fake job writes what it should."""
    run_parts(_manifest("out.jsonl"))
    assert ObjectStore.objects["bucket/jobs/out.jsonl"] == b"".join(content("a", part) for part in range(PARTS))

"""The self-test of the installed grpcio."""

import pytest

from inferd.rpc import self_test
from inferd.rpc.core import IncompatibleGrpcioError


@pytest.fixture(autouse=True)
def _untested():
    """Clear the cached result before and after."""
    self_test.check_grpcio.cache_clear()
    yield
    self_test.check_grpcio.cache_clear()


def test_passes_with_the_installed_grpcio():
    """One loopback call is answered."""
    self_test.check_grpcio()


def test_failure_names_the_tested_releases(monkeypatch):
    """Any failure becomes one clear error."""

    def fail():
        raise TypeError("request_call() takes 7 arguments")

    monkeypatch.setattr(self_test, "_call_self", fail)
    with pytest.raises(IncompatibleGrpcioError, match=r"failed the self-test; this .* grpcio 1\.76 to 1\.85") as error:
        self_test.check_grpcio()
    assert isinstance(error.value.__cause__, TypeError)


def test_wrong_answer_is_a_failure(monkeypatch):
    """An answer alone is not enough."""
    monkeypatch.setattr(self_test, "_call_self", lambda: b"other")
    with pytest.raises(IncompatibleGrpcioError, match="sent b'probe', got b'other'"):
        self_test.check_grpcio()


def test_caches_a_pass_but_not_a_failure(monkeypatch):
    """A pass is remembered for the process."""
    answers = [b"other", b"probe"]
    monkeypatch.setattr(self_test, "_call_self", lambda: answers.pop(0))
    with pytest.raises(IncompatibleGrpcioError):
        self_test.check_grpcio()
    self_test.check_grpcio()
    self_test.check_grpcio()
    assert answers == []

"""The test of the installed aiohttp, with it and with one that behaves differently."""

import pytest
from aiohttp import web

from inferd.http import self_test
from inferd.http.connections import Connection


@pytest.fixture(autouse=True)
def _not_tested_yet() -> None:
    self_test.check_aiohttp.cache_clear()


def test_installed_version_passes() -> None:
    """Otherwise no server would start."""
    self_test.check_aiohttp()


def test_detects_a_parser_that_hides_malformed_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request would wait for its body until its time is over."""
    monkeypatch.setattr(self_test, "_TIMEOUT_S", 0.2)
    monkeypatch.setattr(Connection, "_fail_malformed", lambda self, body: None)
    with pytest.raises(self_test.IncompatibleAiohttpError, match="self-test"):
        self_test.check_aiohttp()


def test_detects_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names it, and the versions that have it."""
    monkeypatch.delattr(web.RequestHandler, "_process_keepalive")
    with pytest.raises(self_test.IncompatibleAiohttpError, match=r"3\.14.*lacks RequestHandler\._process_keepalive"):
        self_test.check_aiohttp()


def test_detects_that_answers_are_not_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next request of a connection would wait forever."""
    monkeypatch.setattr(self_test, "_TIMEOUT_S", 0.2)
    monkeypatch.setattr(Connection, "log_access", lambda *_: None)
    with pytest.raises(self_test.IncompatibleAiohttpError, match="self-test"):
        self_test.check_aiohttp()

"""Pictures of the page for the documentation, taken only if SCREENSHOTS names a directory."""

import itertools
import os
import time
from pathlib import Path

import pytest

from tests.page.browser import browsing
from tests.page.conftest import load
from tests.page.test_page import classified
from tests.server import ROOT, serving

_FOLDER = os.environ.get("SCREENSHOTS", "")

#: Pauses of the clients and seconds of load, in waves, that the charts show.
_LOADS = ((0.1, 10), (0.04, 12), (0.02, 10), (0.05, 12), (0.15, 10))
_WAVES = 4

_CLIENTS = 6


@pytest.mark.timeout(900)
@pytest.mark.skipif(not _FOLDER, reason="SCREENSHOTS names no directory")
def test_screenshots(tmp_path):
    """One at a desk, light and dark, and one on a phone; the built-in model under a load that changes."""
    folder = ROOT / Path(_FOLDER)
    with serving("--set", "batching.max_wait_ms=4") as server:
        for pause_s, seconds in itertools.chain.from_iterable([_LOADS] * _WAVES):
            with load(server.rest, pause_s, threads=_CLIENTS):
                time.sleep(seconds)
        with load(server.rest, 0.05, threads=_CLIENTS):
            for name, scheme, width in (
                ("status-page", "light", 1280),
                ("status-page-dark", "dark", 1280),
                ("status-page-phone", "light", 375),
            ):
                with browsing(server.rest, scheme=scheme, width=width) as browser:
                    browser.open()
                    assert classified(browser, 3) == "3"
                    browser.picture(folder / f"{name}.png")

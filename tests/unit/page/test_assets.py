"""The files of the page: their headers, their tags, and what may not be in them."""

import gzip
import hashlib
import re
from importlib.resources import files

import pytest

from inferd.page.assets import INDEX, Assets

STATIC = files("inferd.page") / "static"
OWN = sorted(file.name for file in STATIC.iterdir() if file.name.endswith((".js", ".html", ".css")))


@pytest.fixture(scope="module")
def assets() -> Assets:
    return Assets()


def test_policy_allows_nothing_but_own_files(assets):
    """Neither inline scripts nor other servers, and no page may embed this one."""
    headers = dict(assets.answer(INDEX, ()).headers)
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy.pop("default-src") == "'none'"
    assert {policy.pop(name) for name in ("base-uri", "form-action", "frame-ancestors")} == {"'none'"}
    assert set(policy.values()) == {"'self'"}
    assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")


def test_unchanged_files_are_not_sent_again(assets):
    """By any of the tags that a browser names, as weak ones too; another tag gets the file."""
    first = assets.answer("page.css", ())
    tag = dict(first.headers)["ETag"]
    assert (first.status, dict(first.headers)["Cache-Control"]) == (200, "no-cache")
    for sent in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = assets.answer("page.css", (("if-none-match", sent),))
        assert (again.status, bytes(again), dict(again.headers)["ETag"]) == (304, b"", tag)
    assert assets.answer("page.css", (("if-none-match", '"other"'),)).status == 200


def test_files_are_compressed_for_browsers_that_ask(assets):
    """The same content."""
    plain = assets.answer("main.js", (("accept-encoding", "br"),))
    packed = assets.answer("main.js", (("accept-encoding", "br, gzip;q=0.8"),))
    assert dict(packed.headers)["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed) == plain == (STATIC / "main.js").read_bytes()


@pytest.mark.parametrize("name", ["", "other.js", "../handlers.py", "vendor/uPlot.min.css", "__init__.py"])
def test_other_files_are_not_found(assets, name):
    """Names are looked up, and never joined to a path."""
    assert assets.answer(name, ()).status == 404


@pytest.mark.parametrize("name", OWN)
def test_files_refer_to_this_server_only_and_build_no_markup(name):
    """Nothing is loaded from elsewhere, nothing is inline, and texts cannot become elements or code."""
    text = (STATIC / name).read_text()
    assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", text, re.IGNORECASE)
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|localStorage|\sstyle=|\son\w+="
    )
    assert not re.search(forbidden, text)
    if name == INDEX:
        assert "<style" not in text
        assert not re.search(r"<script(?![^>]* src=)", text)


def test_scripts_that_are_imported_exist(assets):
    """Relative to the file, so that a proxy may serve the page below a path."""
    for name in OWN:
        for wanted in re.findall(r'from "(.*?)"', (STATIC / name).read_text()):
            assert assets.answer(wanted.removeprefix("./"), ()).status == 200, (name, wanted)
    for wanted in re.findall(r'(?:src|href)="page/files/(.*?)"', (STATIC / INDEX).read_text()):
        assert assets.answer(wanted, ()).status == 200, wanted


def test_charting_library_is_what_its_note_says():
    """Unchanged files with their licence."""
    vendor = STATIC / "vendor"
    note = (vendor / "uPlot.README.txt").read_text()
    sums = re.findall(r"^([0-9a-f]{64})  (?:dist/)?(\S+)$", note, re.MULTILINE)
    assert len(sums) == 3
    for digest, name in sums:
        file = "uPlot.LICENSE.txt" if name == "LICENSE" else name
        assert hashlib.sha256((vendor / file).read_bytes()).hexdigest() == digest
    assert "MIT License" in (vendor / "uPlot.LICENSE.txt").read_text()
    assert "(v1.6.32)" in (vendor / "uPlot.iife.min.js").read_text()[:200]

"""Temporary directories are deleted: by their process, or by the next one."""

import os
import subprocess
import sys
import tempfile

import pytest

from inferd.models.load_override import TemporaryFolder, delete_leftovers

_KILLED = """
import os, signal
from inferd.models.load_override import TemporaryFolder
(TemporaryFolder().path / "1").mkdir()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_deleted_with_its_content(folder):
    """As long as the process goes on."""
    made = TemporaryFolder()
    (made.path / "file").write_text("text")
    made.delete()
    assert list(folder.iterdir()) == []


def test_leftovers_of_a_killed_process(folder):
    """Those in use stay, and so do links and the files of others."""
    subprocess.run([sys.executable, "-c", _KILLED], env={**os.environ, "TMPDIR": str(folder)}, check=False)
    (killed,) = folder.iterdir()
    used = TemporaryFolder()
    other = folder / "inferd-load-file"
    other.write_text("text")
    link = folder / "inferd-load-link"
    link.symlink_to(used.path)
    delete_leftovers()
    assert not killed.exists()
    assert sorted(folder.iterdir()) == sorted([used.path, other, link])
    used.delete()

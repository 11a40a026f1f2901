"""Which folders have the limits that hold for a process."""

from pathlib import Path

import pytest

from inferd.runtime.cgroups import folders


@pytest.mark.parametrize(
    ("membership", "expected"),
    [
        ("0::/\n", ["."]),
        ("0::/pods/one\n", ["pods/one", "pods", "."]),
        ("5:memory:/a\n4:cpu:/x\n", ["cpu/x", "cpu", "cpu/x", "cpu"]),
        ("4:cpu,cpuacct:/x\n", ["cpu/x", "cpu", "cpu,cpuacct/x", "cpu,cpuacct"]),
        ("4:cpuset:/b\n", []),
        ("", []),
    ],
)
def test_from_the_innermost_on(tmp_path, membership, expected):
    """Version 2's line has no controllers; version 1 may mount cpu with others, and cpuset is not cpu."""
    (tmp_path / "membership").write_text(membership)
    found = folders("cpu", Path("root"), tmp_path / "membership")
    assert [str(folder.relative_to("root")) for folder in found] == expected


def test_a_system_without_cgroups(tmp_path):
    """Limits nothing."""
    assert list(folders("cpu", tmp_path, tmp_path / "missing")) == []

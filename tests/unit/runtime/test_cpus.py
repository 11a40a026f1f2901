"""How many cores there are to use, from the files that Linux has about it."""

import os
from pathlib import Path

import pytest

from inferd.runtime.cpus import parallel_runs, parse_cfs_quota, parse_cpu_max, threads_per_run, usable_cores


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("50000 100000", 0.5), ("200000", 2.0)]
)
def test_cgroup_v2_quota(text, cores):
    """The quota is a share of a period, which may be left out."""
    assert parse_cpu_max(text) == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1\n", None), ("0", None), ("300000\n", 3.0)])
def test_cgroup_v1_quota(quota, cores):
    """Minus one is no limit."""
    assert parse_cfs_quota(quota, "100000\n") == cores


@pytest.fixture
def four_cores(monkeypatch):
    """A process that may use four cores as far as affinity goes."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})


def cores(root: Path, membership: str) -> int:
    (root / "membership").write_text(membership)
    return usable_cores(root, root / "membership")


@pytest.mark.usefixtures("four_cores")
def test_without_a_quota_affinity_counts(tmp_path):
    """Neither cgroup files nor a limit in them."""
    assert cores(tmp_path, "0::/\n") == 4
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cores(tmp_path, "0::/\n") == 4
    assert usable_cores(tmp_path, tmp_path / "missing") == 4


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(("limit", "expected"), [("250000 100000", 2), ("50000 100000", 1), ("800000 100000", 4)])
def test_a_quota_is_rounded_down(tmp_path, limit, expected):
    """To one core at least, and never above affinity."""
    (tmp_path / "cpu.max").write_text(limit)
    assert cores(tmp_path, "0::/\n") == expected


@pytest.mark.usefixtures("four_cores")
def test_the_tightest_of_nested_limits_counts(tmp_path):
    """A pod's limit holds for its containers."""
    inner = tmp_path / "pod" / "container"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("300000 100000")
    (tmp_path / "pod" / "cpu.max").write_text("200000 100000")
    assert cores(tmp_path, "0::/pod/container\n") == 2


@pytest.mark.usefixtures("four_cores")
def test_a_path_of_the_host_is_read_at_the_root(tmp_path):
    """Inside a container the host's path is not there, and the root is the container's own."""
    (tmp_path / "cpu.max").write_text("100000 100000")
    assert cores(tmp_path, "0::/kubepods/on/the/host\n") == 1


@pytest.mark.usefixtures("four_cores")
def test_cgroup_v1_is_read(tmp_path):
    """Where the cpu hierarchy is mounted by itself or with cpuacct."""
    folder = tmp_path / "cpu,cpuacct" / "docker"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text("200000\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert cores(tmp_path, "4:cpu,cpuacct:/docker\n") == 2


@pytest.mark.parametrize(
    ("configured", "on_accelerator", "instances", "threads"),
    [(0, False, 1, 8), (0, False, 3, 2), (0, False, 99, 1), (0, True, 1, 1), (6, True, 2, 6)],
)
def test_threads_of_a_run(configured, on_accelerator, instances, threads):
    """The setting if there is one, 1 on an accelerator, else the cores shared out among the instances."""
    found = threads_per_run(configured=configured, on_accelerator=on_accelerator, instances=instances, cores=8)
    assert found == threads


@pytest.mark.parametrize(
    ("threads", "on_accelerator", "runs"), [(1, False, 8), (3, False, 2), (8, False, 1), (9, False, 1), (1, True, 1)]
)
def test_runs_that_have_cores_of_their_own(threads, on_accelerator, runs):
    """One at least; on an accelerator no more, because all runs are on the same device."""
    assert parallel_runs(threads=threads, on_accelerator=on_accelerator, cores=8) == runs

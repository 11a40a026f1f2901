"""Limits of cores and memory, from the files of Linux."""

import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from inferd.runtime.resources import (
    MemoryGrowth,
    cgroup_directories,
    give_way,
    has_room,
    parallel_runs,
    parse_cfs_quota,
    parse_cpu_max,
    resident_bytes,
    threads_per_run,
    usable_bytes,
    usable_cores,
)

_MIB = 1024 * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_threads_of_runs_give_way(monkeypatch) -> None:
    """Their own priority is lowered, that of others is not; it need not be permitted."""
    before, found = os.getpriority(os.PRIO_PROCESS, 0), []

    def run() -> None:
        give_way()
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        monkeypatch.setattr(os, "setpriority", forbidden)
        give_way()

    def forbidden(*_: int) -> None:
        raise PermissionError

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [min(before + 2, 19)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


def test_resident_bytes_counts_written_memory() -> None:
    """In bytes, and immediately."""
    before = resident_bytes()
    held = np.ones(64 * _MIB, np.uint8)
    assert 60 * _MIB < resident_bytes() - before < 80 * _MIB
    assert held.all()


@pytest.mark.parametrize(
    ("membership", "file", "text", "expected"),
    [
        ("0::/", "memory.max", "max\n", 8 * _MIB),
        ("0::/", "memory.max", f"{4 * _MIB}\n", 4 * _MIB),
        ("0::/", "memory.max", f"{16 * _MIB}\n", 8 * _MIB),
        ("0::/service/inner", "service/memory.max", f"{2 * _MIB}\n", 2 * _MIB),
        ("7:memory:/docker", "memory/docker/memory.limit_in_bytes", f"{_MIB}\n", _MIB),
        ("0::/", "elsewhere", "1\n", 8 * _MIB),
    ],
)
def test_usable_bytes(tmp_path, membership, file, text, expected) -> None:
    """The tightest limit of nested cgroups, if below the machine's memory."""
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    (tmp_path / "membership").write_text(membership)
    (tmp_path / "meminfo").write_text("MemFree: 1 kB\nMemTotal:       8192 kB\n")
    assert usable_bytes(tmp_path, tmp_path / "membership", tmp_path / "meminfo") == expected


def test_process_is_below_its_limit() -> None:
    """With the real files."""
    assert 0 < resident_bytes() < usable_bytes()


def test_extrapolates_memory_of_larger_batches():
    """In proportion to rows, from the largest run so far, with a margin."""
    resident = [100]
    growth = MemoryGrowth(resident=lambda: resident[0], usable=lambda: 1000)
    assert (growth.budget, growth.expected(1000)) == (250, 0)
    growth.ran(1)
    resident[0] = 110
    growth.ran(2)
    assert (growth.expected(2), growth.expected(11), growth.expected(21)) == (10, 100, 200)
    assert growth.fits(21)
    assert not growth.fits(25)


def test_budget_is_at_most_half_of_unused_memory():
    """Requests need memory as well."""
    assert MemoryGrowth(resident=lambda: 800, usable=lambda: 1000).budget == 100
    assert MemoryGrowth(resident=lambda: 1200, usable=lambda: 1000).budget == 0


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
def test_yields_cgroups_from_innermost(tmp_path, membership, expected):
    """A v2 line has no controllers; v1 may mount cpu with others, and cpuset is not cpu."""
    (tmp_path / "membership").write_text(membership)
    found = cgroup_directories("cpu", Path("root"), tmp_path / "membership")
    assert [str(folder.relative_to("root")) for folder in found] == expected


def test_no_cgroups(tmp_path):
    """Yields no directory."""
    assert list(cgroup_directories("cpu", tmp_path, tmp_path / "missing")) == []


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("50000 100000", 0.5), ("200000", 2.0)]
)
def test_parses_v2_quota(text, cores):
    """The quota is relative to a period, which may be omitted."""
    assert parse_cpu_max(text) == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1\n", None), ("0", None), ("300000\n", 3.0)])
def test_parses_v1_quota(quota, cores):
    """Minus one means no limit."""
    assert parse_cfs_quota(quota, "100000\n") == cores


@pytest.fixture
def four_cores(monkeypatch):
    """Set the CPU affinity to four cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})


def cores(root: Path, membership: str) -> int:
    (root / "membership").write_text(membership)
    return usable_cores(root, root / "membership")


@pytest.mark.usefixtures("four_cores")
def test_affinity_limits_cores_without_quota(tmp_path):
    """Without cgroup files, or without a limit in them."""
    assert cores(tmp_path, "0::/\n") == 4
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cores(tmp_path, "0::/\n") == 4
    assert usable_cores(tmp_path, tmp_path / "missing") == 4


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(("limit", "expected"), [("250000 100000", 2), ("50000 100000", 1), ("800000 100000", 4)])
def test_rounds_quota_down(tmp_path, limit, expected):
    """At least one core, and never more than affinity allows."""
    (tmp_path / "cpu.max").write_text(limit)
    assert cores(tmp_path, "0::/\n") == expected


@pytest.mark.usefixtures("four_cores")
def test_tightest_nested_limit_wins(tmp_path):
    """A pod's limit holds for its containers."""
    inner = tmp_path / "pod" / "container"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("300000 100000")
    (tmp_path / "pod" / "cpu.max").write_text("200000 100000")
    assert cores(tmp_path, "0::/pod/container\n") == 2


@pytest.mark.usefixtures("four_cores")
def test_reads_root_for_host_path(tmp_path):
    """In a container the host's path does not exist, and the root is the container's own."""
    (tmp_path / "cpu.max").write_text("100000 100000")
    assert cores(tmp_path, "0::/kubepods/on/the/host\n") == 1


@pytest.mark.usefixtures("four_cores")
def test_reads_cgroup_v1(tmp_path):
    """With the cpu hierarchy mounted alone or with cpuacct."""
    folder = tmp_path / "cpu,cpuacct" / "docker"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text("200000\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert cores(tmp_path, "4:cpu,cpuacct:/docker\n") == 2


@pytest.mark.parametrize(
    ("configured", "on_accelerator", "instances", "threads"),
    [(0, False, 1, 8), (0, False, 3, 2), (0, False, 99, 1), (0, True, 1, 1), (6, True, 2, 6)],
)
def test_threads_per_run(configured, on_accelerator, instances, threads):
    """As configured, 1 on an accelerator, else the cores divided by the instances."""
    found = threads_per_run(configured=configured, on_accelerator=on_accelerator, instances=instances, cores=8)
    assert found == threads


@pytest.mark.parametrize(
    ("threads", "on_accelerator", "runs"), [(1, False, 8), (3, False, 2), (8, False, 1), (9, False, 1), (1, True, 1)]
)
def test_parallel_runs(threads, on_accelerator, runs):
    """At least one; on an accelerator always one, because all runs share the device."""
    assert parallel_runs(threads=threads, on_accelerator=on_accelerator, cores=8) == runs


def test_room_of_the_process():
    """Within its limits of size, of which the system tells beforehand."""
    assert has_room(2**20)
    assert not has_room(2**62)

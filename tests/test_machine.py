"""Machines that are folders: what the kernel would say of a container, a mixed cgroup system, a laptop."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo import machine

GIB = 1 << 30


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def siblings(*groups: str) -> dict[str, str]:
    """topology files of cores given as lists of hardware threads, "0,4" """
    return {
        f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list": group
        for group in groups
        for number in group.split(",")
    }


def test_one_thread_for_each_physical_core(tmp_path: Path) -> None:
    root = write(tmp_path, siblings("0,4", "1,5", "2,6", "3,7"))
    assert machine.processors(root=root, affinity=range(8)) == machine.Processors(8, 4, None)
    assert machine.processors(root=root, affinity={0, 4, 1}).threads == 2


def test_without_topology_each_hardware_thread_is_a_core(tmp_path: Path) -> None:
    assert machine.processors(root=tmp_path, affinity={2, 3, 9}).threads == 3


@pytest.mark.parametrize(
    ("quota", "threads"),
    [
        ("200000 100000", 2),
        ("50000 100000", 1),
        ("195000 100000", 2),
        ("150000 100000", 1),
        ("max 100000", 8),
    ],
)
def test_quota_of_version_2(tmp_path: Path, quota: str, threads: int) -> None:
    root = write(tmp_path, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": quota})
    assert machine.processors(root=root, affinity=range(8)).threads == threads


def test_the_least_quota_on_the_way_up_counts(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/box",
            "sys/fs/cgroup/pod/box/cpu.max": "max 100000",
            "sys/fs/cgroup/pod/cpu.max": "300000 100000",
            "sys/fs/cgroup/cpu.max": "600000 100000",
        },
    )
    assert machine.cpu_quota(root=root) == 3.0


def test_a_path_of_the_host_that_is_not_mounted_here(tmp_path: Path) -> None:
    root = write(
        tmp_path, {"proc/self/cgroup": "0::/../../elsewhere/box", "sys/fs/cgroup/cpu.max": "400000 100000"}
    )
    assert machine.cpu_quota(root=root) == 4.0


def test_quota_of_version_1(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/box\n1:cpu,cpuacct:/box\n0::/",
        "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "250000",
        "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
    }
    assert machine.cpu_quota(root=write(tmp_path, files)) == 2.5


@pytest.mark.parametrize("text", ["", "nonsense", "0 0", "100000", "-5 100000", "1 0", "\xff\xfe"])
def test_a_strange_quota_is_none(tmp_path: Path, text: str) -> None:
    root = write(tmp_path, {"proc/self/cgroup": "0::/\n:::\nx", "sys/fs/cgroup/cpu.max": text})
    assert machine.cpu_quota(root=root) is None


def test_memory_of_the_machine(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   1024 kB"})
    assert machine.available_memory(root=root) == 1 << 20


def test_memory_of_a_container_gives_back_idle_file_pages(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/meminfo": "MemAvailable: 99999999 kB",
            "proc/self/cgroup": "0::/",
            "sys/fs/cgroup/memory.max": str(2 * GIB),
            "sys/fs/cgroup/memory.high": "max",
            "sys/fs/cgroup/memory.current": str(GIB + GIB // 2),
            "sys/fs/cgroup/memory.stat": f"anon 5\ninactive_file {GIB // 4}",
        },
    )
    assert machine.available_memory(root=root) == GIB * 3 // 4


def test_memory_of_version_1(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/meminfo": "MemAvailable: 99999999 kB",
            "proc/self/cgroup": "4:memory:/host/box\n0::/",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(3 * GIB),
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(GIB),
        },
    )
    assert machine.available_memory(root=root) == 2 * GIB
    write(tmp_path, {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"})
    assert machine.available_memory(root=root) == 99999999 * 1024


def test_this_machine() -> None:
    found = machine.processors()
    assert 1 <= found.threads <= found.cores <= found.hardware_threads
    assert machine.available_memory() > 0

"""What this process may really use of the machine: cores, CPU quota, memory.

A container often sees all of the host's cores and memory in /proc and is allowed a part of them; a thread
above the quota costs more than it brings, since all are stopped together when it is used up.  The sources are
the kernel's: cgroup v2 (cpu.max, memory.max) and v1 (cpu.cfs_quota_us, memory.limit_in_bytes), the affinity
mask, and /sys/devices/system/cpu for cores that two hardware threads share.

`root` is where /proc and /sys lie; tests give a folder of theirs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/")
# A quota this close below a whole number of cores is that number (schedulers round).
_QUOTA_SLACK = 0.1
# cgroup v1 writes "no limit" as a huge number of bytes.
_NO_LIMIT_BYTES = 1 << 60


@dataclass(frozen=True, slots=True)
class Processors:
    """hardware_threads: of the affinity mask.  cores: physical ones of them.  quota: cores, None for none."""

    hardware_threads: int
    cores: int
    quota: float | None

    @property
    def threads(self) -> int:
        """How many threads compute best: one for each core, and no more than the quota pays for."""
        if self.quota is None:
            return self.cores
        return max(1, min(self.cores, int(self.quota + _QUOTA_SLACK)))


def default_threads() -> int:
    """How many threads this process should compute with."""
    return processors().threads


def processors(*, root: Path = _ROOT, affinity: Collection[int] | None = None) -> Processors:
    """The processors of this process.  affinity: numbers of hardware threads, by default its own."""
    if affinity is None:
        affinity = _affinity()
    return Processors(len(affinity), _physical_cores(affinity, root), cpu_quota(root=root))


def _affinity() -> Collection[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


def _physical_cores(affinity: Collection[int], root: Path) -> int:
    """Sets of hardware threads that share a core, counted once each."""
    cores = set()
    for number in affinity:
        topology = root / f"sys/devices/system/cpu/cpu{number}/topology"
        siblings = _read(topology / "core_cpus_list") or _read(topology / "thread_siblings_list")
        cores.add(siblings or str(number))
    return max(1, len(cores))


def cpu_quota(*, root: Path = _ROOT) -> float | None:
    """The least CPU quota of this process's cgroups and those above, in cores; None where there is none."""
    quotas = []
    for folder in _cgroups("cpu", root):
        words = _read(folder / "cpu.max").split()  # v2: "200000 100000", or "max 100000"
        if len(words) != 2:  # v1; -1 is no quota
            words = [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
        quota, period = _number(words[0]), _number(words[1])
        if quota and period:
            quotas.append(quota / period)
    return min(quotas, default=None)


def available_memory(*, root: Path = _ROOT) -> int:
    """Bytes that this process can still take without swapping or being killed."""
    meminfo = re.search(r"^MemAvailable:\s+(\d+) kB", _read(root / "proc/meminfo"), re.MULTILINE)
    amounts = [int(meminfo[1]) * 1024 if meminfo else _physical_memory()]
    for folder in _cgroups("memory", root):
        for limit_name, usage_name in (
            ("memory.max", "memory.current"),
            ("memory.high", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, usage = _number(_read(folder / limit_name)), _number(_read(folder / usage_name))
            if limit is not None and limit < _NO_LIMIT_BYTES and usage is not None:
                # File pages that were not used lately count as usage, and the kernel gives them back.
                amounts.append(max(0, limit - usage + min(usage, _inactive_file_bytes(folder))))
    return min(amounts)


def _inactive_file_bytes(folder: Path) -> int:
    found = re.search(r"^(?:total_)?inactive_file (\d+)", _read(folder / "memory.stat"), re.MULTILINE)
    return int(found[1]) if found else 0


def _physical_memory() -> int:
    """Where the kernel does not say what is available (macOS): all that is built in."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return _NO_LIMIT_BYTES  # unknown: nothing is refused


def _cgroups(controller: str, root: Path) -> Iterator[Path]:
    """Folders of this process's cgroups for a controller, v2 and v1, each followed by those above it."""
    mounts = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:  # v2, or the v2 part of a mixed system
            bases = [mounts, mounts / "unified"]
        elif controller in controllers.split(","):
            bases = [mounts / controllers, mounts / controller]
        else:
            continue
        # In a container the path may be the host's, which is not mounted here: the folders above it are.
        relative = Path(path.lstrip("/"))
        if ".." in relative.parts:
            relative = Path()
        for base in dict.fromkeys(bases):
            for part in (relative, *relative.parents):
                if (base / part).is_dir():
                    yield base / part


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(text: str) -> int | None:
    """A count that the kernel wrote; None for "max", -1 and what is not there."""
    return int(text) if text.isdecimal() else None

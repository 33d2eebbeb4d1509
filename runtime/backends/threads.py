"""How many CPU threads one inference should use on this machine."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def default_threads() -> int:
    """Physical cores this process may use.

    Convolutions fill a core's arithmetic units with one thread, so two hyper-threads of a core only compete. A
    container's CPU quota counts too: engines that look at the host's cores alone start too many threads there.
    """
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = len({_siblings(cpu) for cpu in cpus})
    quota = _quota()
    return max(1, cores if quota is None else min(cores, int(quota)))


def _siblings(cpu: int) -> str:
    try:
        return Path(_TOPOLOGY.format(cpu)).read_text()
    except OSError:
        return str(cpu)


def _quota() -> float | None:
    """CPUs a container may use, None for no limit. The file holds 'max 100000' or '150000 100000' (microseconds)."""
    try:
        limit, period = _CGROUP_QUOTA.read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        return None

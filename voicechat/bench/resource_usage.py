"""CPU time and memory of a process and its descendants, read from Linux's ``/proc``."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """The resource usage at one moment."""

    cpu_s: float
    """CPU time of the processes so far, user and system."""
    anonymous_bytes: int
    """Anonymous memory: without code and other mapped files, which processes share."""
    machine_busy_s: float
    """CPU time of everything on the machine so far."""


def usage_of(pid: int) -> ResourceUsage | None:
    """Return the usage of ``pid`` and its descendants. None without ``/proc``, or if
    there is no such process.
    """
    if not (_PROC / "self" / "stat").is_file():
        return None
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    cpu_ticks = anonymous_bytes = 0
    try:
        for process in _tree(pid):
            # Fields 3 and later of proc(5). They follow the process name, which is in
            # parentheses and may contain spaces.
            fields = (_PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
            cpu_ticks += int(fields[11]) + int(fields[12])
            anonymous_bytes += _anonymous_bytes(process)
        machine = [
            int(field) for field in (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]
        ]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, _steal = machine
    busy_ticks = user + nice + system + irq + softirq
    return ResourceUsage(cpu_ticks / ticks_per_s, anonymous_bytes, busy_ticks / ticks_per_s)


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for children in (_PROC / str(pid) / "task").glob("*/children"):
        for child in children.read_text().split():
            yield from _tree(int(child))


def _anonymous_bytes(pid: int) -> int:
    lines = (_PROC / str(pid) / "status").read_text().splitlines()
    # A process that has just exited has no such line.
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)

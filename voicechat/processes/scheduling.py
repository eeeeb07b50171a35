"""How Linux shares the cores between an event loop and models that compute."""

import ctypes
import os
import platform
import struct
import sys

SLICE_NS = 100_000
"""The shortest slice that Linux accepts (kernel/sched/syscalls.c)."""

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""System call numbers (``arch/x86/entry/syscalls/syscall_64.tbl`` and
``include/uapi/asm-generic/unistd.h``). The C libraries have the call since glibc 2.41
only.
"""
_SCHED_ATTR = struct.Struct("=IIQiIQQQ")
"""``struct sched_attr`` in its first version: size, policy, flags, niceness, priority,
runtime, deadline, period.
"""
_RESET_ON_FORK = 1
"""SCHED_FLAG_RESET_ON_FORK."""


def ask_for_short_slices() -> bool:
    """Ask Linux to run the calling thread in short slices, so that it gets a core soon
    after it wakes up, although models keep all cores busy. Returns whether Linux has
    accepted it.

    The scheduler (EEVDF) first runs the thread whose slice would end first. A thread
    with a short slice gets no more of the cores, but gets its part sooner. Niceness
    does not have this effect: Linux compares it within a session only
    (``sched_autogroup``), and each child process has a session of its own.

    Measured with three children of two computing threads each, on two cores that other
    work kept busy, too: without this an event loop was late by 5 to 6 ms (median) and
    17 to 21 ms (99 %), with it by 2 to 3 ms and 9 to 13 ms.

    Linux before 6.12 ignores the length. Threads and processes that are started later
    do not inherit it. A thread that runs under another policy than the usual one keeps
    it.
    """
    if sys.platform != "linux" or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None or sys.maxsize < 1 << 32:
        return False
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    asked = _SCHED_ATTR.pack(
        _SCHED_ATTR.size, os.SCHED_OTHER, _RESET_ON_FORK, niceness, 0, SLICE_NS, 0, 0
    )
    # The first 0 means the calling thread; the last is the call's own flags.
    status: int = ctypes.CDLL(None).syscall(ctypes.c_long(number), 0, asked, 0)
    return status == 0
